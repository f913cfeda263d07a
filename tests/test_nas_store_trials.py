"""A trial is stored as Optuna stores it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import inspect, text

from nas.store_trials import TrialStorage

AXES = {"encoder": CategoricalDistribution(["a", "b"]), "depth": CategoricalDistribution([2, 4, 6])}


def finished(values: list[float] | None, axes: dict[str, CategoricalDistribution] = AXES) -> FrozenTrial:
    return create_trial(
        state=TrialState.FAIL if values is None else TrialState.COMPLETE,
        params={"encoder": "b", "depth": 4},
        distributions=axes,
        values=values,
        constraints=None if values is None else {"latency_ms <= 5": -0.5},
        user_attrs={"key": "k", "figures": {"params": 3, "label": "é"}},
    )


TRIALS = [finished([0.5, 7.0]), finished([0.25, float("inf")]), finished(None), finished([0.75, float("-inf")])]


def stored(storage: RDBStorage) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables but what tells two databases of one kind apart."""
    study = optuna.create_study(storage=storage, study_name="one", directions=["maximize", "minimize"])
    for trial in TRIALS:
        trial.datetime_start = trial.datetime_complete = datetime(2026, 11, 30, 12)
        storage.create_new_trial(storage.get_study_id_from_name(study.study_name), trial)
    names = [name for name in inspect(storage.engine).get_table_names() if name.startswith("trial")]
    with storage.engine.connect() as connection:
        return {name: sorted(map(tuple, connection.execute(text(f"select * from {name}"))), key=repr) for name in names}


def test_rows_are_those_of_optuna(tmp_path: Path) -> None:
    ours = stored(TrialStorage(f"sqlite:///{tmp_path}/ours.db"))
    assert len(ours["trials"]) == len(TRIALS) and len(ours["trial_params"]) == 2 * len(TRIALS)
    assert ours == stored(RDBStorage(f"sqlite:///{tmp_path}/optuna.db"))


def test_axes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    storage = TrialStorage(f"sqlite:///{tmp_path}/ours.db")
    stored(storage)
    other = AXES | {"depth": CategoricalDistribution([4, 8])}
    with pytest.raises(ValueError, match="does not support dynamic value space"):
        storage.create_new_trial(1, finished([0.5, 7.0], other))
    with pytest.raises(ValueError, match="does not support dynamic value space"):
        storage.create_new_trial(1, finished([0.5, 7.0], other))
    assert storage.get_n_trials(1) == len(TRIALS)
