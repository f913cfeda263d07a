"""Optuna's own storage, which writes a finished trial as one insert a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import insert

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class TrialStorage(RDBStorage):
    """For each parameter and attribute of a trial Optuna looks up the trial and what others had: 45 statements for
    one of `pocket`, most of a driver's time. The rows are the same (a test compares them). The first trial of each
    set of axes goes Optuna's way, which refuses what does not fit to the trials that are stored.
    """

    axes_stored: Mapping[str, BaseDistribution] | None = None

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        if template_trial is None or template_trial.distributions != self.axes_stored:
            trial = super()._get_prepared_new_trial(study_id, template_trial, session)
            self.axes_stored = template_trial.distributions if template_trial else self.axes_stored
            return trial
        trial = models.TrialModel(
            study_id=study_id,
            state=template_trial.state,
            datetime_start=template_trial.datetime_start,
            datetime_complete=template_trial.datetime_complete,
        )
        session.add(trial)
        session.flush()  # it has an id from here on
        for model, rows in _rows(template_trial).items():
            if rows:
                session.execute(insert(model), [{"trial_id": trial.trial_id, **row} for row in rows])
        trial.number = trial.count_past_trials(session)
        return trial


def _rows(trial: FrozenTrial) -> dict[type[Any], list[dict[str, Any]]]:
    """By table. A finished trial has no intermediate values here."""
    values = [models.TrialValueModel.value_to_stored_repr(value) for value in trial.values or []]
    return {
        models.TrialValueModel: [
            {"objective": place, "value": value, "value_type": kind} for place, (value, kind) in enumerate(values)
        ],
        models.TrialParamModel: [
            {
                "param_name": name,
                "param_value": axis.to_internal_repr(trial.params[name]),
                "distribution_json": distribution_to_json(axis),
            }
            for name, axis in trial.distributions.items()
        ],
        models.TrialUserAttributeModel: _attributes(trial.user_attrs),
        models.TrialSystemAttributeModel: _attributes(trial.system_attrs),
    }


def _attributes(found: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in found.items()]
