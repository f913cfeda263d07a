"""Published comparisons: groups of VLMs that differ only in architecture, and how a score ranks inside them.

Truth of a row: its mean rank over the metrics that all rows of its group share (those that say error, loss, perplexity,
latency or ms are left out). Groups of fewer than four rows, or without a shared metric, are left out. Where a score is
constant or unknown in a group its correlation counts as 0.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls
from scipy.stats import rankdata, spearmanr

from nas.cost_rows import Matrix
from nas.errors import ConfigError
from nas.quality.columns import number
from nas.quality.gaussian import COVERAGE
from nas.quality.published import features, known_groups, score

FEWEST = 4
PRIOR = 0.1  # weight of a unit of any oriented feature of which the data say nothing
RIDGE = 0.3
RESAMPLES = 2000
LOWER = ("error", "loss", "perplex", "latency", "ms")
COLUMNS = ("group_id", "metrics")
LAW_ALPHA, LAW_BETA = 0.077, 0.015  # Li et al. 2024, arXiv 2411.03312

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one comparison, their places in the table, and their truth."""

    name: str
    source: str
    rows: tuple[Row, ...]
    places: tuple[int, ...]
    truth: Matrix


def is_published(rows: Sequence[Row]) -> bool:
    """Whether a table is of this kind."""
    return {one.partition(".")[0] for row in rows for one in row}.issuperset(COLUMNS)


def groups(rows: Sequence[Row]) -> list[Group]:
    """Those that rank anything; a row that names no group is in none. Raises: ConfigError for none."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        name = row.get("group_id")
        if name is not None and name == name and str(name).strip():  # NaN is not itself
            by_name[str(name)].append(place)
    found = []
    for name, places in by_name.items():
        members = tuple(rows[place] for place in places)
        goal = truth(members) if len(places) >= FEWEST else None
        if goal is not None:
            found.append(Group(name, str(members[0].get("source") or name), members, tuple(places), goal))
    if not found:
        raise ConfigError(f"a table of groups needs one of {FEWEST} rows or more that share a metric, but has none")
    return found


def truth(rows: Sequence[Row]) -> Matrix | None:
    """Mean ranks (rows,), or None without a shared metric."""
    metrics = [_metrics(row) for row in rows]
    shared = set(metrics[0]).intersection(*metrics[1:])
    usable = [
        name for name in sorted(shared)
        if not any(word in name.lower() for word in LOWER) and len({one[name] for one in metrics}) > 1
    ]  # fmt: skip
    if not usable:
        return None
    ranks: Matrix = np.mean([rankdata([one[name] for one in metrics]) for name in usable], axis=0)
    return ranks


def rho(scores: Sequence[float | None], goal: Matrix) -> float:
    """Spearman; 0 where a score is unknown or all are one."""
    if any(one is None or not np.isfinite(one) for one in scores):
        return 0.0
    rounded = np.round(np.array(scores, dtype=float), 9)
    return float(spearmanr(rounded, goal)[0]) if len(set(rounded.tolist())) > 1 else 0.0


BASELINES: dict[str, Callable[[Row], float | None]] = {
    "scaling law": lambda row: _law(row),
    "log LM params": lambda row: number(row.get("lm_params_M")),
    "visual tokens": lambda row: number(row.get("visual_tokens_after_compression")),
    "encoder params": lambda row: number(row.get("encoder_params_M")),
    "resolution": lambda row: number(row.get("image_resolution")),
    "LM depth": lambda row: number(row.get("lm_layers")),
    "LM depth x width": lambda row: _depth_by_width(row, 1),
    "LM depth x width^2": lambda row: _depth_by_width(row, 2),
}


def by_group(found: Sequence[Group]) -> dict[str, list[float]]:
    """Spearman in each group of the baselines and of the shipped weights."""
    named = {"published score (shipped weights)": score, **BASELINES}
    return {
        name: [rho([one(row) for row in group.rows], group.truth) for group in found] for name, one in named.items()
    }


def interval(rhos: Sequence[float]) -> tuple[float, float]:
    """90 % of the mean over groups, by groups drawn with replacement."""
    draws = np.random.default_rng(0).integers(0, len(rhos), (RESAMPLES, len(rhos)))
    low, high = np.quantile(np.asarray(rhos)[draws].mean(axis=1), [0.05, 0.95])
    return float(low), float(high)


def held_out(found: Sequence[Group], *, by: Callable[[Group], str], ridge: float = RIDGE) -> list[list[float]]:
    """Scores of each group's rows by weights fitted on the groups that differ in `by`: name, or source."""
    names, data, scale = _tables(found)
    scores = []
    for place, group in enumerate(found):
        others = [data[i] for i, other in enumerate(found) if by(other) != by(group)]
        weights = _fit(others, scale, ridge) if others else np.full(len(names), PRIOR)
        scores.append([float(one) for one in data[place][0] @ weights])
    return scores


def shipped_saw(found: Sequence[Group]) -> int:
    """Groups that the shipped weights were fitted on: their figure there is in sample."""
    return sum(group.name in known_groups() for group in found)


def fitted(found: Sequence[Group], ridge: float = RIDGE) -> dict[str, dict[str, float]]:
    """Weight of each feature on all groups, and the median that stands for an unknown value."""
    names, data, scale = _tables(found)
    weights = _fit(data, scale, ridge)
    table = [features(row) for group in found for row in group.rows]
    return {
        name: {
            "weight": round(float(weight), 5),
            "centre": round(float(np.median([row[name] for row in table if name in row])), 4),
        }
        for name, weight in zip(names, weights, strict=True)
    }


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a unit of the held-out score means in accuracy (0..1), inside a group."""

    slope: float
    half_width: float  # 80 % of the rows are within it of their group's mean and the slope
    coverage: float  # of that interval, on groups left out of slope and width
    groups: int


def calibrate(found: Sequence[Group], held: Sequence[Sequence[float]]) -> Calibration:
    """From the metrics that are percentages; every group has the same weight in the slope."""
    pairs = []
    for group, scores in zip(found, held, strict=True):
        accuracy = _accuracy(group.rows)
        if accuracy is not None:
            centred = np.asarray(scores) - np.mean(scores)
            pairs.append((centred, accuracy - accuracy.mean()))
    errors = [y - _slope([pair for pair in pairs if pair[0] is not x]) * x for x, y in pairs]
    inside = 0
    for one in errors:
        others = np.abs(np.concatenate([other for other in errors if other is not one]))
        inside += int((np.abs(one) <= np.quantile(others, COVERAGE)).sum())
    whole = np.abs(np.concatenate(errors))
    return Calibration(_slope(pairs), float(np.quantile(whole, COVERAGE)), inside / len(whole), len(pairs))


def _slope(pairs: Sequence[tuple[Matrix, Matrix]]) -> float:
    weights = [1 / len(x) for x, _ in pairs]
    products = sum(weight * float(x @ y) for weight, (x, y) in zip(weights, pairs, strict=True))
    return products / sum(weight * float(x @ x) for weight, (x, _) in zip(weights, pairs, strict=True))


def _accuracy(rows: Sequence[Row]) -> Matrix | None:
    """Mean (rows,) of the shared metrics that are percentages, as shares; None without one."""
    metrics = [_metrics(row) for row in rows]
    shared = [
        name for name in sorted(set(metrics[0]).intersection(*metrics[1:]))
        if not any(word in name.lower() for word in LOWER)
        and all(0 <= one[name] <= 100 for one in metrics)
        and max(one[name] for one in metrics) > 1
    ]  # fmt: skip
    if not shared:
        return None
    found: Matrix = np.mean([[one[name] / 100 for name in shared] for one in metrics], axis=1)
    return found


def _tables(found: Sequence[Group]) -> tuple[list[str], list[tuple[Matrix, Matrix]], Matrix]:
    """Features that vary anywhere, (features, truth) of each group, and the scale of each feature."""
    names = sorted({name for group in found for row in group.rows for name in features(row)})
    tables = [_centred(group.rows, names) for group in found]
    scale = np.sqrt(np.mean(np.concatenate([table**2 for table in tables]), axis=0))
    kept = scale > 0
    data = [(table[:, kept], group.truth) for table, group in zip(tables, found, strict=True)]
    return [name for name, keep in zip(names, kept, strict=True) if keep], data, scale[kept]


def _centred(rows: Sequence[Row], names: list[str]) -> Matrix:
    """Centred within the group; an unknown value is the group's mean."""
    known_features = [features(row) for row in rows]
    table = np.array([[one.get(name, np.nan) for name in names] for one in known_features])
    known = np.isfinite(table)
    mean = np.where(known, table, 0).sum(0) / np.maximum(known.sum(0), 1)
    result: Matrix = np.where(known, table, mean) - mean
    return result


def _fit(data: Sequence[tuple[Matrix, Matrix]], scale: Matrix, ridge: float) -> Matrix:
    """Non-negative ridge on centred ranks, drawn to PRIOR instead of zero; each group has the same weight."""
    rows = np.concatenate([x / scale / np.sqrt(len(x)) for x, _ in data])
    ranks = np.concatenate([(y - y.mean()) / (y.std() or 1) / np.sqrt(len(y)) for _, y in data])
    penalty = np.sqrt(ridge) * np.eye(rows.shape[1])
    if not scale.size:  # the groups' rows do not differ in anything that is known
        return scale
    weights, _ = nnls(np.vstack([rows, penalty]), np.concatenate([ranks, np.sqrt(ridge) * PRIOR * scale]))
    result: Matrix = weights / scale
    return result


def _metrics(row: Row) -> dict[str, float]:
    """Finite results by name: of a cell that holds a JSON object, or of columns `metrics.NAME`."""
    value = row.get("metrics")
    try:
        cell = json.loads(value) if isinstance(value, str) and value else value
    except ValueError:
        raise ConfigError(f"column 'metrics' must hold JSON, but got {value!r}") from None
    nested = {key.removeprefix("metrics."): one for key, one in row.items() if key.startswith("metrics.")}
    found = {**nested, **cell} if isinstance(cell, dict) else nested
    return {name: known for name, one in found.items() if (known := number(one)) is not None}


def _depth_by_width(row: Row, power: int) -> float | None:
    depth, width = number(row.get("lm_layers")), number(row.get("lm_hidden"))
    return None if depth is None or width is None else depth * width**power


def _law(row: Row) -> float | None:
    size, tokens = number(row.get("lm_params_M")), number(row.get("visual_tokens_after_compression"))
    return None if not size or not tokens else -(size**-LAW_ALPHA) * tokens**-LAW_BETA
