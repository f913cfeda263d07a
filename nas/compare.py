"""Compares two runs: what differs between their settings, code, packages and machines, and where their trials part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from nas import config as configs
from nas.errors import RunError
from nas.inputs import fingerprints
from nas.records import Evaluation
from nas.report_records import records
from nas.run_folder import ENV, RunFolder

ABSENT = "(absent)"
NAMES_ONLY = ("study", "storage")  # of settings: they name a run, and change nothing in it
OF_THE_MOMENT = ("load_average", "later")


def compare(one: RunFolder, other: RunFolder) -> dict[str, Any]:
    """Differences as [here, there] by dotted name, and the first trial that is not the same. Raises: UserError."""
    runs = [one, other]
    mine, theirs = (_evaluations(run) for run in runs)
    alike = next((place for place, pair in enumerate(zip_longest(mine, theirs)) if not _same(*pair)), None)
    return {
        "runs": [str(run.path) for run in runs],
        "settings": differences(*(_settings(run) for run in runs)),
        "environment": differences(*(_environment(run) for run in runs)),
        "trials": [len(mine), len(theirs)],
        "same_trials": len(mine) if alike is None else alike,
        "first_difference": None if alike is None else [_shown(trials, alike) for trials in (mine, theirs)],
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values that are not the same in two nested mappings, [one, other] by their dotted names, sorted."""
    mine, theirs = _flat(one), _flat(other)
    names = sorted(mine.keys() | theirs.keys())
    pairs = {name: [mine.get(name, ABSENT), theirs.get(name, ABSENT)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _flat(fields: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def _settings(run: RunFolder) -> dict[str, Any]:
    config = fingerprints(configs.load(run.config_file, {}, []).model_dump(mode="json"))
    return {name: value for name, value in config.items() if name not in NAMES_ONLY}


def _environment(run: RunFolder) -> dict[str, Any]:
    """Where the run last went on; its load is of the moment. Raises: RunError."""
    try:
        stored = json.loads((run.path / ENV).read_text(encoding="utf-8"))
        last = (stored.get("later") or [stored])[-1]
        return {name: value for name, value in last.items() if name not in OF_THE_MOMENT}
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{run.path / ENV} cannot be read ({error}); a search writes it") from None


def _evaluations(run: RunFolder) -> list[Evaluation]:
    store = records(run, configs.load(run.config_file, {}, []).storage)
    try:
        return store.evaluations(run.study)
    finally:
        store.close()


def _same(one: Evaluation | None, other: Evaluation | None) -> bool:
    """Candidate, status and scores; latency and time are the device's and the moment's."""
    return one is not None and other is not None and _outcome(one) == _outcome(other)


def _outcome(evaluation: Evaluation) -> tuple[object, ...]:
    return evaluation.key, evaluation.status, _scores(evaluation), evaluation.quality


def _scores(evaluation: Evaluation) -> dict[str, float | None]:
    return {name: score.value for name, score in evaluation.proxies.items()}


def _shown(trials: list[Evaluation], place: int) -> dict[str, Any] | str:
    """Of the trial at that place, or that there is none."""
    if place >= len(trials):
        return ABSENT
    found = trials[place]
    quality = None if found.quality is None else found.quality.value
    return {
        "key": found.key,
        "status": found.status,
        "quality": quality,
        "proxies": _scores(found),
        "error": found.error,
    }
