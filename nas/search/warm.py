"""Warm starts: what an earlier run knows, and candidates that the user names.

Scores and trainings do not depend on the device, so a run of another device gives them to this one, and only latency is
new here. Scores are taken over where seed and proxies are the same, trainings where recipe and data are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas import config as configs
from nas import run_folder
from nas.config import SearchConfig
from nas.errors import ConfigError, RunError, StorageError
from nas.quality.score import proxies_of
from nas.records import Evaluation
from nas.run_folder import RunFolder
from nas.search.evaluate import Outcome
from nas.search.problem import Problem
from search_spaces import Candidate, load_candidate

if TYPE_CHECKING:
    from nas.store import Store

SAME_TRAINING = ("train_steps", "train_images", "seed", "data")


@dataclass(frozen=True)
class WarmStart:
    """Candidates to begin with, and outcomes that are known already, by key."""

    first: list[Candidate] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def named(problem: Problem) -> list[Candidate]:
    """The candidates of the files that the user named. Raises: ConfigError for one that is not of the space."""
    found = []
    for file in problem.config.candidates:
        candidate = load_candidate(Path(file))
        reason = problem.space.explain(candidate)
        if reason:
            raise ConfigError(f"{file} is not of space {problem.space.name}: {reason}")
        found.append(candidate)
    return found


def earlier_run(name: str, out: Path = Path("runs")) -> RunFolder:
    """The run that another begins with. Raises: RunError where it holds none."""
    from nas.store import connect

    before = run_folder.find(name, out)
    earlier = configs.load(before.config_file, {}, [])
    if earlier.storage is None and not (before.path / run_folder.DATABASE).is_file():
        raise RunError(f"--from {name}: {before.path} has no {run_folder.DATABASE}; give a run that has been searched")
    try:
        connect(earlier.storage or before.default_storage).dispose()
    except StorageError as error:
        raise RunError(f"--from {name}: {error}; give another run") from error
    return before


def warm_start(problem: Problem, folder: RunFolder, store: Store, say: Callable[[str], None]) -> WarmStart:
    """Reads the earlier run, takes its comparable trainings over, and says what it took. Raises: UserError."""
    from nas.store import Store

    config, first = problem.config, named(problem)
    if config.start_from is None:
        return WarmStart(first)
    before = earlier_run(config.start_from)
    earlier = configs.load(before.config_file, {}, [])
    with closing(Store(earlier.storage or before.default_storage)) as stored:
        evaluations = [one for one in stored.evaluations(before.study) if one.status != "failed"]
        trainings = stored.trainings(before.study)
    known = {one.key: Candidate.model_validate(one.candidate) for one in evaluations}
    known = {key: candidate for key, candidate in known.items() if candidate in problem.space}
    here = store.trainings(folder.study)
    taken = 0
    otherwise = [name for name in SAME_TRAINING if getattr(earlier, name) != getattr(config, name)]
    if not otherwise:
        for key, training in trainings.items():
            if key not in known:
                continue
            taken += 1
            if key not in here:
                kept = training.checkpoint is not None and _take_weights(before.finalist(key), folder.finalist(key))
                store.add_training(folder.study, training if kept else replace(training, checkpoint=None))
    outcomes = {
        one.key: _outcome(one) for one in evaluations if one.key in known and _same_scores(config, earlier, one)
    }
    say(
        f"warm start   from {before.path.name}: {len(known)} candidates of this space, {len(outcomes)} with their "
        f"scores, {taken} with their training"
        + (f"; {len(trainings)} were trained with other {', '.join(otherwise)}" if trainings and otherwise else "")
    )
    return WarmStart([*first, *(known[key] for key in trainings if key in known)], outcomes)


def _take_weights(source: Path, place: Path) -> bool:
    """Links a trained model (to another disk: copies it), all or nothing; whether it is there."""

    def link(file: str, copy: str) -> None:
        try:
            os.link(file, copy)
        except OSError:
            shutil.copy2(file, copy)

    from nas.train.finalists import RESULT_FILE

    if not (source / RESULT_FILE).is_file():
        return False
    partial = place.parents[1] / f".{place.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial, copy_function=link)
        place.parent.mkdir(exist_ok=True)
        partial.rename(place)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
    return (place / RESULT_FILE).is_file()


def _same_scores(config: SearchConfig, earlier: SearchConfig, evaluation: Evaluation) -> bool:
    wanted = set(proxies_of(Candidate.model_validate(evaluation.candidate), config.proxies))
    return config.seed == earlier.seed and set(evaluation.proxies) == wanted


def _outcome(evaluation: Evaluation) -> Outcome:
    return Outcome(evaluation.key, evaluation.proxies, 0.0)
