"""What can be said of the models of a table by their structure alone: baselines, and features to fit anchors on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.cost_rows import Matrix
from nas.quality.architecture import LEADING, OFFERED, architecture
from search_spaces.candidate import Candidate

Columns = dict[str, list[float | None]]
PREFIX = "candidate."


@dataclass(frozen=True, slots=True)
class Derived:
    """Columns that were computed, and standardised features of the rows whose structure is known."""

    kind: str  # what the rows were read as
    columns: Columns
    params: str  # the column of them that counts parameters
    features: list[Sequence[float] | None]  # one a row; anchors are chosen by all of them
    leading: int | None = None  # the score is fitted on so many of them; None: all
    offered: tuple[str, ...] = ()  # columns that the fit may admit beside them

    def matrix(self, places: Sequence[int]) -> Matrix:
        """(places, features), standardised over them; candidates' are so over their space already."""
        found = np.array([self.features[place] for place in places], dtype=float)
        if self.kind == "candidates":
            return found
        scale = found.std(axis=0)
        scale[scale == 0] = 1.0
        result: Matrix = (found - found.mean(axis=0)) / scale
        return result


def derive(rows: Sequence[Mapping[str, Any]]) -> Derived | None:
    """Of flat rows that hold candidates, or configurations of transformers; None where fewer than two do."""
    candidates = [_candidate(row) for row in rows]
    if sum(one is not None for one in candidates) >= 2:
        return _of_candidates(candidates)
    found = [architecture(row) for row in rows]
    if sum(one is not None for one in found) < 2:
        return None
    sizes = [None if one is None else one.sizes() for one in found]
    names = next(list(one) for one in sizes if one is not None)
    columns: Columns = {name: [None if one is None else one[name] for one in sizes] for name in names}
    features: list[Sequence[float] | None] = [None if one is None else one.features() for one in found]
    return Derived("transformers", columns, names[0], features, LEADING, OFFERED)


def estimated_latency(rows: Sequence[Mapping[str, Any]], device: str) -> tuple[str, list[float | None]]:
    """A column's name, with device and label, and each candidate's latency of workload vqa-short there.

    By the device's calibration where there is one, else by its datasheet. Raises: ProfileError where it has neither.
    """
    import hardware_profiles
    from nas import workload
    from nas.latency.estimate import estimate, known_calibration

    profile, request = hardware_profiles.load(device), workload.load("vqa-short")
    model = known_calibration(profile.id)
    found = [None if one is None else estimate(one, request, profile, model) for one in map(_candidate, rows)]
    label = next(one.label for one in found if one is not None)
    return f"latency_ms on {profile.id} ({label})", [None if one is None else one.latency_ms for one in found]


def _candidate(row: Mapping[str, Any]) -> Candidate | None:
    fields = {key.removeprefix(PREFIX): value for key, value in row.items() if key.startswith(PREFIX)}
    try:
        return Candidate.model_validate(fields) if fields else None
    except ValueError:
        return None


def _of_candidates(candidates: Sequence[Candidate | None]) -> Derived:
    from nas import workload
    from nas.cost import cost
    from nas.quality.prior import prior
    from nas.quality.structure import Structure, structural

    request = workload.load("vqa-short")
    known = [one for one in candidates if one is not None]
    structure = Structure(known)
    values: list[dict[str, float] | None] = []
    features: list[Sequence[float] | None] = []
    for one in candidates:
        if one is None:
            values.append(None)
            features.append(None)
            continue
        costs = cost(one, request)
        values.append(
            {
                "params (counted)": costs.params,
                **structural(one, costs),
                "predicted:prior": prior(one, costs).value,
            }
        )
        features.append(structure.features([one])[0].tolist())
    names = next(list(one) for one in values if one is not None)
    columns: Columns = {name: [None if one is None else float(one[name]) for one in values] for name in names}
    return Derived("candidates", columns, names[0], features)
