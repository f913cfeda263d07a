"""A session: one driver at work on one run, opened by measuring blocks and gating the space by what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optuna.exceptions import StorageInternalError

from nas.config import SearchConfig
from nas.durations import about
from nas.errors import RunError
from nas.records import NO_LATENCY, Evaluation
from nas.run_folder import RunFolder
from nas.search.archive import Archive
from nas.search.expectation import Expected, Pace
from nas.search.gate import feasible, fitting
from nas.search.latencies import Latencies
from nas.search.problem import Problem, define, is_measurable
from nas.search.training import training_data
from nas.search.warm import WarmStart
from nas.store import Store
from search_spaces import Candidate

if TYPE_CHECKING:
    from nas.train.data import VqaData

PUBLISH_EVERY_S = 10.0  # at least; the dashboard's note and front are then brought up to date
PUBLISH_SHARE = 0.05  # of the time at most: what is written grows with the trials
RETRY_EVERY = 10  # trials, and less often later on; devices that did not answer are then asked again

Say = Callable[[str], None]


@dataclass
class Listener:
    """Where a search reports to; every default keeps silent."""

    say: Say = lambda text: None
    progress: Callable[[str, int, int], None] = lambda what, done, of: None
    trial: Callable[[Evaluation, int, int], None] = lambda evaluation, done, of: None


@dataclass
class Session:
    """One driver at work on one run."""

    config: SearchConfig
    folder: RunFolder
    problem: Problem
    store: Store
    archive: Archive
    listener: Listener
    latencies: Latencies
    pace: Pace
    expected: Expected
    allowed: dict[str, Candidate] = field(default_factory=dict)
    anchors: list[Candidate] = field(default_factory=list)
    drawn: list[Candidate] = field(default_factory=list)  # and not evaluated: their device did not answer, or a kill
    warm: WarmStart = field(default_factory=WarmStart)
    solving_s: float = 0.0  # that the search for an exact front took, which nothing is expected of
    next_retry: int = RETRY_EVERY
    next_publication: float = field(default_factory=lambda: time.monotonic() + PUBLISH_EVERY_S)


def open_session(
    config: SearchConfig, folder: RunFolder, store: Store, listener: Listener, pause: Callable[[float], None]
) -> Session:
    """Gate in closed form, measure the blocks of what is left, gate by latency."""
    problem = define(config)
    if folder.devices and folder.devices != sorted(problem.profiles):
        raise RunError(
            f"{folder.path} was measured on {', '.join(folder.devices)}, but this is {', '.join(problem.profiles)}; "
            f"go on with it there, or start a new search here"
        )
    fit = fitting(problem, problem.space.survey)
    blocks = problem.blocks(fit) if any(map(is_measurable, problem.profiles.values())) else []
    latencies = Latencies(problem, store, blocks, listener.say, listener.progress, pause=pause)
    latencies.measure()
    problem.resolve_constraints()
    known = [candidate for candidate in fit if problem.is_measured(candidate)]
    unmeasured = len(fit) - len(known)
    _note_unmeasured(store, folder, listener, unmeasured)
    store.set_meta(f"gated:{folder.study}", str(len(problem.space.survey) - unmeasured))  # should none be left
    allowed = feasible(problem, known)
    archive = Archive(problem, config.storage or folder.default_storage, folder.study)
    out = len(problem.space.survey) - len(allowed) - unmeasured
    listener.say(
        f"gate         {out:,} of {len(problem.space.survey):,} candidates cannot meet the constraints; "
        f"{len(allowed):,} can"
    )
    trained = "anchors and finalists" if config.anchors else "finalists"
    pace = Pace.now(problem, latencies.cache, _trained_on(problem))
    told = pace.expected(allowed)
    listener.say(f"time         about {about(told.trials_s)} for trials and {about(told.trainings_s)} for {trained}")
    store.set_meta(f"gated:{folder.study}", str(out))
    return Session(
        config, folder, problem, store, archive, listener, latencies, pace, told, {c.key: c for c in allowed}
    )


def _trained_on(problem: Problem) -> VqaData | None:
    """None where nothing is trained, or nothing can be."""
    config = problem.config
    if not config.anchors + config.finalists or (problem.hears and config.data is None):
        return None
    return training_data(config.data, hears=problem.hears, most=config.train_images)


def _note_unmeasured(store: Store, folder: RunFolder, listener: Listener, count: int) -> None:
    store.set_meta(f"unmeasured:{folder.study}", str(count))
    if count:
        listener.say(f"unmeasured   {count} candidates have no latency: {NO_LATENCY}")


def retry_unmeasured(session: Session) -> None:
    """Candidates of a device that answers again join the search."""
    if not session.latencies.unmeasured or not session.latencies.retry():
        return
    problem = session.problem
    fit = fitting(problem, problem.space.survey)
    known = [candidate for candidate in fit if problem.is_measured(candidate)]
    session.allowed |= {candidate.key: candidate for candidate in feasible(problem, known)}
    _note_unmeasured(session.store, session.folder, session.listener, len(fit) - len(known))


def publish_when_due(session: Session) -> None:
    """What takes the driver longer than a trial's record: called while the workers have something to do."""
    begun = time.monotonic()
    if begun < session.next_publication:
        return
    publish(session)
    ended = time.monotonic()
    session.next_publication = ended + max(PUBLISH_EVERY_S, (ended - begun) / PUBLISH_SHARE)


def publish(session: Session) -> None:
    """Notes and figures for the dashboard; one that is not installed or cannot be written is no reason to fail."""
    with suppress(ImportError, OSError, StorageInternalError):
        from nas.search import board

        board.publish(session.archive.study, session.folder)
