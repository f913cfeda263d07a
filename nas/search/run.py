"""The search: open a session, train anchors, run trials, prove finalists. One driver; only it touches the database."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing

import torch

from nas.config import SearchConfig
from nas.durations import about
from nas.errors import NothingFeasibleError, StorageError
from nas.lease import lease
from nas.run_folder import RunFolder
from nas.search.anchors import train_anchors
from nas.search.finalists import prove
from nas.search.gate import feasible
from nas.search.session import Listener, Session, open_session, publish
from nas.search.trials import run_trials
from nas.search.warm import warm_start
from nas.store import Store


def run(
    config: SearchConfig, folder: RunFolder, listener: Listener, pause: Callable[[float], None] = time.sleep
) -> None:
    """Searches, or goes on with what the folder holds already; finished work is never repeated.

    `pause` waits so many seconds before a device that did not answer is asked again.

    Raises: UserError, NothingFeasibleError; KeyboardInterrupt after what is known was written.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    with (
        folder.locked(),
        closing(Store(config.storage or folder.default_storage)) as store,
        lease(store, folder.study, folder.path),
    ):
        folder.note_environment()
        _search(config, folder, store, listener, pause)


def _search(
    config: SearchConfig, folder: RunFolder, store: Store, listener: Listener, pause: Callable[[float], None]
) -> None:
    from nas import report

    started = time.monotonic()
    try:
        session = open_session(config, folder, store, listener, pause)
    except NothingFeasibleError as error:
        _note_nothing(store, folder, error)
        _note_time(store, folder, started)
        report.write(folder)
        raise
    try:
        is_new = not store.evaluations(folder.study) and not store.trainings(folder.study)
        session.warm = warm_start(session.problem, folder, store, listener.say)
        begun = time.monotonic()
        _anchor(session)
        anchored = time.monotonic()
        run_trials(session)
        tried = time.monotonic()
        prove(session)
        if is_new and not session.warm.outcomes:
            _compare_time(session, tried - anchored - session.solving_s, anchored - begun + time.monotonic() - tried)
    except StorageError:  # what could be said of it could not be written either
        raise
    except BaseException as error:
        if isinstance(error, NothingFeasibleError):
            _note_nothing(store, folder, error)
        _sum_up(session, started)
        raise
    finally:
        session.latencies.close()
    _sum_up(session, started)


def _compare_time(session: Session, trials_s: float, trainings_s: float) -> None:
    """What a search took that was done in one go, beside what was expected, from which the next one learns."""
    expected, store, study = session.expected, session.store, session.folder.study
    trials = sum(one.status != "infeasible" for one in store.evaluations(study))
    session.pace.learn(expected, trials, trials_s, len(store.trainings(study)), trainings_s)
    session.listener.say(
        f"time         trials took {about(trials_s)} of {about(expected.trials_s)} expected, "
        f"trainings {about(trainings_s)} of {about(expected.trainings_s)}"
    )
    store.set_meta(
        f"time:{study}",
        json.dumps({"expected_s": [expected.trials_s, expected.trainings_s], "took_s": [trials_s, trainings_s]}),
    )


def _sum_up(session: Session, started: float) -> None:
    """Time spent, report, and what the dashboard shows."""
    from nas import report

    _note_time(session.store, session.folder, started)
    report.write(session.folder)
    publish(session)


def _note_nothing(store: Store, folder: RunFolder, error: NothingFeasibleError) -> None:
    store.set_meta(f"nothing_feasible:{folder.study}", str(error))


def _note_time(store: Store, folder: RunFolder, started: float) -> None:
    spent = float(store.meta(f"wall_s:{folder.study}") or 0) + time.monotonic() - started
    store.set_meta(f"wall_s:{folder.study}", str(spent))


def _anchor(session: Session) -> None:
    """Trains the anchors, where the run has any, and gates anew by what they say of quality."""
    problem = session.problem
    if not session.config.anchors:
        return
    allowed = list(session.allowed.values())
    told = session.listener
    session.anchors = train_anchors(problem, session.folder, session.store, allowed, told.say, told.progress)
    session.allowed = {candidate.key: candidate for candidate in feasible(problem, allowed)}
