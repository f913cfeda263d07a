"""Trials: ask and tell on the driver's side, evaluation on the workers'; every outcome is stored before it is told."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import closing

import numpy as np

from nas.config import SearchConfig
from nas.cost import cost
from nas.execution import Executor, executor
from nas.latency.measure import pinned
from nas.limits import Limits
from nas.quality.score import proxies_of
from nas.records import GIB, NO_LATENCY, Evaluation
from nas.search.evaluate import Outcome, Task, evaluate
from nas.search.exact import Weighed, weigh
from nas.search.funnel import funnel_of
from nas.search.gate import fits_memory, landmarks
from nas.search.interrupts import Interrupts
from nas.search.problem import Problem
from nas.search.proposer import Proposer, Sampled
from nas.search.session import RETRY_EVERY, Session, publish_when_due, retry_unmeasured
from nas.search.sides import MOST_S, front_of_sides
from nas.search.warm import named
from search_spaces import Candidate

TRIAL_THREADS = 1  # in process: with two, six trials of `pocket` on two quiet cores took 6.6 s and not 1.6
LIKELY = 0.01  # of draws in which a design is on the front: those have a say in how surely others are
KILL_AFTER_S = 30  # beyond its time limit a worker that cannot be interrupted is killed


def run_trials(session: Session) -> None:
    """Ask and tell until the trials are done, the time is up or the space is exhausted."""
    config, problem = session.config, session.problem
    near_front = _weigh(session).promising(config.trials // 2)
    allowed = list(session.allowed.values())
    proposer = proposer_of(problem, allowed)
    extremes = landmarks(allowed, lambda c: cost(c, problem.workload).params)
    first = {
        c.key: c for c in [*session.warm.first, *session.anchors, *extremes, *near_front] if c.key in session.allowed
    }
    queue = list(first.values())
    for candidate in named(problem):
        if candidate.key not in session.allowed:
            session.listener.say(f"left out     {candidate}, which was named: {_why_not(problem, candidate)}")
    near = sum(candidate in near_front for candidate in queue[: config.trials])
    session.listener.say(f"trials       {near} of {config.trials} are of that front, or of what may be on it")
    done = _replay(session, proposer, queue)
    if done >= config.trials:
        return
    deadline = None if config.timeout_s is None else time.monotonic() + config.timeout_s
    with session.folder.trials() as broke_off, closing(_workers(session, apart=config.apart or broke_off)) as workers:
        with Interrupts(session.listener.say) as stop, pinned(TRIAL_THREADS):

            def goes_on() -> bool:
                return not stop.asked and (deadline is None or time.monotonic() < deadline)

            while True:
                if goes_on():
                    done = _refill(session, proposer, queue, workers, done)
                if not workers.busy:
                    break
                publish_when_due(session)
                task, outcome = workers.next_outcome()
                done = number = done + 1
                evaluation = _stored(session, task.candidate, outcome)
                if workers.busy and goes_on():  # the next draw does not wait for this outcome: others are not known too
                    done = _refill(session, proposer, queue, workers, done)
                _finish(session, proposer, task.candidate, evaluation, number)
            if done < config.trials and goes_on():
                session.listener.say("every feasible candidate has been evaluated")
            elif done < config.trials and not stop.asked:
                way = f"the others: nas resume {session.folder.path}"
                session.listener.say(f"timeout      {done} of {config.trials} trials ended in time; {way}")
        if stop.asked:
            raise KeyboardInterrupt
    session.store.set_meta(f"duplicates:{session.folder.study}", str(proposer.duplicates_avoided))


def _why_not(problem: Problem, candidate: Candidate) -> str:
    """What rules a candidate out."""
    if not problem.is_measured(candidate):
        return NO_LATENCY
    missed = problem.violations(problem.metrics(candidate))
    hard = {one.text for one in problem.constraints if not one.soft}
    found = [f"{text!r} is missed by {excess:.4g}" for text, excess in missed.items() if excess > 0 and text in hard]
    return "; ".join(found) or "it does not fit the memory of a device"


def try_one(session: Session, candidate: Candidate) -> Evaluation:
    """One more trial, of a design that is to be trained: it is built, scored and stored as every other."""
    config = session.config
    task = _task(config, candidate)
    workers = executor(evaluate, 1, config.trial_timeout_s + KILL_AFTER_S, None, config.apart)
    with closing(workers), pinned(TRIAL_THREADS):
        workers.submit(task)
        _, outcome = workers.next_outcome()
    evaluation = _stored(session, candidate, outcome)
    session.archive.add(evaluation)
    return evaluation


def _workers(session: Session, apart: bool) -> Executor:
    """`apart`: a single worker has a process of its own, as was asked, or since the last session ended in a trial."""
    config = session.config
    if apart and config.workers == 1 and config.cluster is None:
        session.listener.say("trials       in a process of their own, which may hang or die")
    return executor(evaluate, config.workers, config.trial_timeout_s + KILL_AFTER_S, config.cluster, apart)


def _weigh(session: Session) -> Weighed:
    """The front by predicted quality and known latency: exact where all are weighed, or solved by their sides."""
    problem, store, study, say = session.problem, session.store, session.folder.study, session.listener.say
    size, why_not, extent, count = problem.space.size, "", "every feasible candidate is", len(session.allowed)
    if session.latencies.unmeasured:
        why_not = "some latencies are not known yet"
    elif not problem.space.enumerable:
        say(f"exact        the front of {size:,} candidates is sought by their two sides, for at most {MOST_S:.0f} s")
        begun = time.monotonic()
        solved, why_not = front_of_sides(problem)
        session.solving_s = time.monotonic() - begun
        session.allowed |= {one.key: one for one in solved or []}
        extent, count = f"each of {size:,} candidates, by its two sides, is", size
    if why_not:
        count = len(session.allowed)
        extent = f"{count:,} of {size:,} candidates are"
        say(f"not exact    {why_not}; a draw is weighed instead")
    weighed = weigh(problem, list(session.allowed.values()))
    say(
        f"{'surveyed' if why_not else 'exact':12} {extent} weighed by {problem.quality(problem.baseline).label} "
        f"quality and latency: {len(weighed.front)} of {count:,} are on the front"
    )
    front = [weighed.candidates[place].key for place in weighed.front]
    store.set_meta(f"exact:{study}", json.dumps({"exact": not why_not, "weighed": count, "front": front}))
    likely = np.flatnonzero(weighed.confidence >= LIKELY).tolist()
    to_beat = {
        "keys": [weighed.candidates[place].key for place in likely],
        "gains": weighed.gains[likely].tolist(),
        "errors": weighed.errors[likely].tolist(),
        "among": len(weighed.candidates),
    }
    store.set_meta(f"to_beat:{study}", json.dumps(to_beat))
    return weighed


def proposer_of(problem: Problem, allowed: list[Candidate]) -> Proposer:
    """The sampler that the configuration names. The funnel draws from what is allowed, whose costs are known."""
    config = problem.config
    if config.sampler != "funnel":
        return Sampled(problem.space, problem.directions, config.sampler, config.seed)
    return funnel_of(problem, allowed)


def _task(config: SearchConfig, candidate: Candidate) -> Task:
    memory = None if config.trial_memory_gib is None else int(config.trial_memory_gib * GIB)
    limits = Limits(config.trial_timeout_s, memory, sharers=None if config.cluster else config.workers)
    return Task(candidate, config.seed, proxies_of(candidate, config.proxies), limits)


def _refill(session: Session, proposer: Proposer, queue: list[Candidate], workers: Executor, done: int) -> int:
    """Gives every idle worker a candidate, up to the trials that were asked for; the number that count as done."""
    while workers.has_room and done + workers.busy < session.config.trials:
        candidate = _next(session, proposer, queue)
        if candidate is None:
            break
        if candidate.key in session.warm.outcomes:
            done += 1
            evaluation = _stored(session, candidate, session.warm.outcomes[candidate.key])
            _finish(session, proposer, candidate, evaluation, done)
        else:
            workers.submit(_task(session.config, candidate))
    return done


def _next(session: Session, proposer: Proposer, queue: list[Candidate]) -> Candidate | None:
    """The next candidate worth building; draws that the gate rules out are told to the sampler and never built."""
    if queue:
        return proposer.start(queue.pop(0))
    if session.allowed.keys() <= proposer.seen:
        retry_unmeasured(session)
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
        evaluation = _stored(session, candidate, Outcome(candidate.key, {}, 0.0))
        session.archive.add(evaluation)
        _tell(session, proposer, candidate, evaluation)
    return None


def _finish(session: Session, proposer: Proposer, candidate: Candidate, evaluation: Evaluation, done: int) -> None:
    session.archive.add(evaluation)
    _tell(session, proposer, candidate, evaluation)
    session.listener.trial(evaluation, done, session.config.trials)
    if done >= session.next_retry:
        session.next_retry = done + max(RETRY_EVERY, done // 4)
        retry_unmeasured(session)


def _stored(session: Session, candidate: Candidate, outcome: Outcome) -> Evaluation:
    """In our table first: what is missing in the study after a kill is added from it at the next start."""
    evaluation = _record(session.problem, candidate, outcome)
    session.store.add_evaluation(session.folder.study, evaluation)
    return evaluation


def _record(problem: Problem, candidate: Candidate, outcome: Outcome) -> Evaluation:
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
