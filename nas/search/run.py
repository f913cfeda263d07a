"""The search: gate, measure blocks, ask and tell, finalists. One driver; only it touches the database."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from optuna.exceptions import StorageInternalError

from nas.config import SearchConfig
from nas.cost import cost
from nas.errors import RunError, StorageError
from nas.execution import executor
from nas.latency.measure import canary_at
from nas.lease import lease
from nas.limits import Limits
from nas.quality.score import DEFAULT
from nas.records import GIB, NO_LATENCY, Evaluation
from nas.run_folder import RunFolder
from nas.search.anchors import train_anchors
from nas.search.archive import Archive
from nas.search.evaluate import Outcome, Task, evaluate
from nas.search.exact import Weighed, weigh
from nas.search.expectation import expected_seconds, in_words
from nas.search.finalists import prove
from nas.search.interrupts import Interrupts
from nas.search.latencies import Latencies
from nas.search.problem import Problem, define, feasible, fits_memory, fitting, landmarks
from nas.search.proposer import Proposer, Sampled
from nas.search.warm import WarmStart, warm_start
from nas.store import Store
from search_spaces import Candidate

PUBLISH_EVERY = 10  # trials, and less often later on; the dashboard's note and front are then brought up to date
KILL_AFTER_S = 30  # beyond its time limit a worker that cannot be interrupted is killed

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
    allowed: dict[str, Candidate] = field(default_factory=dict)
    anchors: list[Candidate] = field(default_factory=list)
    drawn: list[Candidate] = field(default_factory=list)  # and not evaluated: their device did not answer, or a kill
    warm: WarmStart = field(default_factory=WarmStart)
    next_publication: int = PUBLISH_EVERY


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
    started = time.monotonic()
    session = _open(config, folder, store, listener, pause)
    try:
        session.warm = warm_start(session.problem, folder, store, listener.say)
        _anchor(session)
        _trials(session)
        prove(session.problem, session.folder, session.store, listener.say, listener.progress)
    except StorageError:  # what could be said of it could not be written either
        raise
    except BaseException:
        _sum_up(session, started)
        raise
    finally:
        session.latencies.close()
    _sum_up(session, started)


def _sum_up(session: Session, started: float) -> None:
    """Time spent, report, and what the dashboard shows."""
    from nas import report

    store, study = session.store, session.folder.study
    spent = float(store.meta(f"wall_s:{study}") or 0) + time.monotonic() - started
    store.set_meta(f"wall_s:{study}", str(spent))
    report.write(session.folder)
    _publish(session)


def _open(
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
    latencies = Latencies(problem, store, problem.blocks(fit), listener.say, listener.progress, pause=pause)
    latencies.measure()
    problem.resolve_constraints()
    known = [candidate for candidate in fit if problem.is_measured(candidate)]
    allowed = feasible(problem, known)
    archive = Archive(problem, config.storage or folder.default_storage, folder.study)
    out = len(problem.space.survey) - len(allowed) - (len(fit) - len(known))
    listener.say(
        f"gate         {out} of {len(problem.space.survey)} candidates cannot meet the constraints; {len(allowed)} can"
    )
    _note_unmeasured(store, folder, listener, len(fit) - len(known))
    trained = "anchors and finalists" if config.anchors else "finalists"
    trials_s, finalists_s = expected_seconds(problem, allowed, canary_at(os.cpu_count() or 1))
    listener.say(
        f"time         about {in_words(trials_s)} for trials and {in_words(finalists_s)} for {trained} (rough estimate)"
    )
    store.set_meta(f"gated:{folder.study}", str(out))
    return Session(config, folder, problem, store, archive, listener, latencies, {c.key: c for c in allowed})


def _note_unmeasured(store: Store, folder: RunFolder, listener: Listener, count: int) -> None:
    store.set_meta(f"unmeasured:{folder.study}", str(count))
    if count:
        listener.say(f"unmeasured   {count} candidates have no latency: {NO_LATENCY}")


def _retry_unmeasured(session: Session) -> None:
    """Candidates of a device that answers again join the search."""
    if not session.latencies.unmeasured or not session.latencies.retry():
        return
    problem = session.problem
    fit = fitting(problem, problem.space.survey)
    known = [candidate for candidate in fit if problem.is_measured(candidate)]
    session.allowed |= {candidate.key: candidate for candidate in feasible(problem, known)}
    _note_unmeasured(session.store, session.folder, session.listener, len(fit) - len(known))


def _anchor(session: Session) -> None:
    """Trains the anchors, where the run has any, and gates anew by what they say of quality."""
    problem = session.problem
    if not session.config.anchors:
        return
    allowed = list(session.allowed.values())
    told = session.listener
    session.anchors = train_anchors(problem, session.folder, session.store, allowed, told.say, told.progress)
    session.allowed = {candidate.key: candidate for candidate in feasible(problem, allowed)}


def _weigh(session: Session, allowed: list[Candidate]) -> Weighed:
    """The front by predicted quality and known latency: exact where all candidates were weighed."""
    problem, store, study = session.problem, session.store, session.folder.study
    weighed = weigh(problem, allowed)
    is_exact = problem.space.enumerable and not session.latencies.unmeasured
    how = f"{problem.quality(problem.baseline).label} quality"
    every = "every feasible candidate" if is_exact else f"{len(allowed)} of {problem.space.size} candidates"
    session.listener.say(
        f"{'exact' if is_exact else 'surveyed':12} {every} is weighed by {how} and latency: {len(weighed.front)} of "
        f"{len(allowed)} are on the front; trials start there"
    )
    front = [weighed.candidates[place].key for place in weighed.front]
    store.set_meta(f"exact:{study}", json.dumps({"exact": is_exact, "weighed": len(allowed), "front": front}))
    return weighed


def _trials(session: Session) -> None:
    """Ask and tell until the trials are done, the time is up or the space is exhausted."""
    config, problem = session.config, session.problem
    allowed = list(session.allowed.values())
    proposer = proposer_of(problem, allowed)
    extremes = landmarks(allowed, lambda c: cost(c, problem.workload).params)
    near_front = _weigh(session, allowed).promising(config.trials // 2)
    first = {
        c.key: c for c in [*session.warm.first, *session.anchors, *extremes, *near_front] if c.key in session.allowed
    }
    queue = list(first.values())
    done = _replay(session, proposer, queue)
    if done >= config.trials:
        return
    deadline = None if config.timeout_s is None else time.monotonic() + config.timeout_s
    workers = executor(evaluate, config.workers, config.trial_timeout_s + KILL_AFTER_S, config.cluster)
    try:
        with Interrupts(session.listener.say) as stop:
            while True:
                late = stop.asked or (deadline is not None and time.monotonic() > deadline)
                while not late and workers.has_room and done + workers.busy < config.trials:
                    candidate = _next(session, proposer, queue)
                    if candidate is None:
                        break
                    if candidate.key in session.warm.outcomes:
                        done += 1
                        _finish(session, proposer, candidate, session.warm.outcomes[candidate.key], done)
                        continue
                    workers.submit(_task(config, candidate))
                if not workers.busy:
                    break
                done += 1
                task, outcome = workers.next_outcome()
                _finish(session, proposer, task.candidate, outcome, done)
        if stop.asked:
            raise KeyboardInterrupt
    finally:
        workers.close()
    session.store.set_meta(f"duplicates:{session.folder.study}", str(proposer.duplicates_avoided))


def proposer_of(problem: Problem, allowed: list[Candidate]) -> Proposer:
    """The sampler that the configuration names. The funnel draws from what is allowed, whose costs are known."""
    config = problem.config
    if config.sampler != "funnel":
        return Sampled(problem.space, problem.directions, config.sampler, config.seed)
    from nas.quality.structure import Structure
    from nas.search.funnel import Funnel

    found = problem.objectives.index("quality")
    gains = np.array([problem.maximised(problem.metrics(candidate)) for candidate in allowed])
    features = Structure(allowed).features(allowed)
    return Funnel(allowed, -np.delete(gains, found, axis=1), features, found, config.seed)


def _task(config: SearchConfig, candidate: Candidate) -> Task:
    memory = None if config.trial_memory_gib is None else int(config.trial_memory_gib * GIB)
    limits = Limits(config.trial_timeout_s, memory, sharers=None if config.cluster else config.workers)
    return Task(candidate, config.seed, tuple(config.proxies or DEFAULT), limits)


def _next(session: Session, proposer: Proposer, queue: list[Candidate]) -> Candidate | None:
    """The next candidate worth building; draws that the gate rules out are told to the sampler and never built."""
    if queue:
        return proposer.start(queue.pop(0))
    if session.allowed.keys() <= proposer.seen:
        _retry_unmeasured(session)
    for waiting in session.drawn:
        if waiting.key in session.allowed:
            session.drawn.remove(waiting)
            return waiting
    while not session.allowed.keys() <= proposer.seen:
        candidate = proposer.propose()
        if candidate is None:  # a device has answered since: what the funnel was not given follows
            return proposer.start(next(one for key, one in session.allowed.items() if key not in proposer.seen))
        if candidate.key in session.allowed:
            return candidate
        if not session.problem.is_measured(candidate):
            session.drawn.append(candidate)
            continue
        evaluation = _record(session, candidate, Outcome(candidate.key, {}, 0.0))
        _tell(session, proposer, candidate, evaluation)
        _keep(session, evaluation)
    session.listener.say("every feasible candidate has been evaluated")
    return None


def _finish(session: Session, proposer: Proposer, candidate: Candidate, outcome: Outcome, done: int) -> None:
    evaluation = _record(session, candidate, outcome)
    _keep(session, evaluation)
    _tell(session, proposer, candidate, evaluation)
    session.listener.trial(evaluation, done, session.config.trials)
    if done >= session.next_publication:
        session.next_publication = done + max(PUBLISH_EVERY, done // 4)
        _retry_unmeasured(session)
        _publish(session)


def _record(session: Session, candidate: Candidate, outcome: Outcome) -> Evaluation:
    problem = session.problem
    costs = cost(candidate, problem.workload)
    metrics = problem.metrics(candidate)
    violations = problem.violations(metrics)
    error = outcome.error or _not_finite(metrics)
    infeasible = problem.breaks(violations) or not fits_memory(problem, candidate)
    return Evaluation(
        key=candidate.key,
        candidate=candidate.to_dict(),
        status="failed" if error else "infeasible" if infeasible else "complete",
        quality=problem.quality(candidate),
        latency=problem.latency(candidate),
        cost=costs,
        proxies=outcome.proxies,
        violations=violations,
        wall_s=outcome.wall_s,
        error=error,
        traceback=outcome.traceback,
    )


def _not_finite(metrics: Mapping[str, float]) -> str | None:
    wrong = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    return f"not finite: {', '.join(wrong)}" if wrong else None


def _keep(session: Session, evaluation: Evaluation) -> None:
    """Our table first: what is missing in the study after a kill is added from it at the next start."""
    session.store.add_evaluation(session.folder.study, evaluation)
    session.archive.add(evaluation)


def _replay(session: Session, proposer: Proposer, queue: list[Candidate]) -> int:
    """Tells the sampler what is stored; the number of trials that count as done.

    While the sampler proposes what it proposed then, it is asked again, and ends in the state that it had: at one
    worker a search that was killed goes on as it would have. Where it proposes otherwise, it is only told the rest.
    """
    done, archived, in_step = 0, session.archive.keys, True
    for evaluation in session.store.evaluations(session.folder.study):
        candidate = Candidate.model_validate(evaluation.candidate)
        session.problem.known_latency[evaluation.key] = evaluation.latency
        if evaluation.key not in archived:
            session.archive.add(evaluation)
        if in_step:
            drawn = proposer.start(queue.pop(0)) if queue else proposer.propose()
            in_step = drawn == candidate
            if drawn is not None and not in_step:
                session.drawn.append(drawn)
        if candidate in session.drawn:
            session.drawn.remove(candidate)
        elif not in_step:
            proposer.start(candidate)
        done += evaluation.status != "infeasible"
        _tell(session, proposer, candidate, evaluation)
    queue[:] = [candidate for candidate in queue if candidate.key not in proposer.seen]
    return done


def _tell(session: Session, proposer: Proposer, candidate: Candidate, evaluation: Evaluation) -> None:
    """What the sampler learns of an evaluation, new or stored."""
    if evaluation.status == "failed":
        proposer.tell_failed(candidate)
    else:
        values = session.problem.objective_values(session.problem.metrics(candidate))
        proposer.tell(candidate, values, evaluation.violations)


def _publish(session: Session) -> None:
    """Notes and figures for the dashboard; one that is not installed or cannot be written is no reason to fail."""
    with suppress(ImportError, OSError, StorageInternalError):
        from nas.search import board

        board.publish(session.archive.study, session.folder)
