"""The persistent Optuna study that dashboards read: every finished trial, written once, with canonical parameters."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from nas.records import Evaluation
from nas.search.problem import Problem
from nas.store import optuna_storage
from search_spaces import Candidate


class Archive:
    """Adds finished trials. There is never a RUNNING one, so a killed driver leaves no zombie behind.

    They go past the study, which would keep every one of them in memory.
    """

    def __init__(self, problem: Problem, url: str, study: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.problem = problem
        self.storage = optuna_storage(url)
        self.study = optuna.create_study(
            study_name=study,
            storage=self.storage,
            directions=problem.directions,
            sampler=RandomSampler(),
            load_if_exists=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.study.set_metric_names(problem.objectives)
        self.number = self.storage.get_study_id_from_name(study)

    @property
    def keys(self) -> set[str]:
        """Keys of the candidates that are there already."""
        trials = self.storage.get_all_trials(self.number, deepcopy=False)
        return {str(trial.user_attrs["key"]) for trial in trials if "key" in trial.user_attrs}

    def add(self, evaluation: Evaluation) -> None:
        """One finished trial. The older form of constraints is written too: the dashboard reads only that one."""
        candidate = Candidate.model_validate(evaluation.candidate)
        fields = candidate.to_dict()
        axes = self.problem.space.axes
        failed = evaluation.status == "failed"
        attributes: dict[str, Any] = {"key": evaluation.key, "status": evaluation.status}
        if failed:
            attributes["reason"] = evaluation.error
        else:
            attributes |= self._attributes(evaluation)
        violations = {} if failed else evaluation.violations
        trial = create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            params={axis: fields[axis] for axis in axes},
            distributions={axis: CategoricalDistribution(values) for axis, values in axes.items()},
            values=None if failed else self.problem.objective_values(self.problem.metrics(candidate)),
            constraints=violations or None,
            system_attrs={"constraints": list(violations.values())} if violations else None,
            user_attrs=attributes,
        )
        if trial.datetime_complete:  # the dashboard's timeline shows how long it took
            trial.datetime_start = trial.datetime_complete - timedelta(seconds=evaluation.wall_s)
        self.storage.create_new_trial(self.number, trial)

    def _attributes(self, evaluation: Evaluation) -> dict[str, Any]:
        """Few, since each is an insert of its own, and those cost most of what a trial costs the driver."""
        assert evaluation.quality is not None and evaluation.cost is not None
        figures = {
            "quality_label": evaluation.quality.label,
            "latency": {device: latency.to_dict() for device, latency in evaluation.latency.items()},
            "params": evaluation.cost.params,
            "memory_gib": evaluation.cost.memory_gib,
        }
        violated = {name: value for name, value in evaluation.violations.items() if value > 0}
        proxies = {name: score.value for name, score in evaluation.proxies.items()}
        return {"figures": figures, "proxies": proxies} | ({"violations": violated} if violated else {})
