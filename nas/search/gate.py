"""The gate: which candidates of a space can keep the limits, before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nas.cost import cost
from nas.cost_many import cost_of_candidates
from nas.errors import NothingFeasibleError
from nas.records import NO_LATENCY
from nas.search.problem import Problem
from search_spaces import Candidate


def fits_memory(problem: Problem, candidate: Candidate) -> bool:
    """Closed form only: the memory of every device, and the constraints on memory and params."""
    costs = cost(candidate, problem.workload)
    return _fits(problem, costs.memory_gib, costs.params)


def fitting(problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that `fits_memory`, costed all at once. Raises: ProfileError where a device has room for none of them."""
    costs = cost_of_candidates(candidates, problem.workload)
    for profile in problem.profiles.values():
        profile.check_room(float(costs.memory_gib.min()), f"the smallest design of {problem.space.name}")
    sizes = zip(costs.memory_gib.tolist(), costs.params.tolist(), strict=True)
    return [one for one, size in zip(candidates, sizes, strict=True) if _fits(problem, *size)]


def _fits(problem: Problem, memory_gib: float, params: int) -> bool:
    return not _misses(problem, memory_gib, params)


def _misses(problem: Problem, memory_gib: float, params: int) -> dict[str, tuple[float, float]]:
    """The limits on memory and params that are missed: by how much in their unit, and as a share of the limit."""
    found, baseline = {"memory_gib": memory_gib, "params": float(params)}, cost(problem.baseline, problem.workload)
    missed = {}
    for profile in problem.profiles.values():
        usable = profile.memory.usable_gib.value
        if usable is not None and not profile.has_room(memory_gib):
            missed[f"memory.usable_gib of {profile.id} is {usable:g}"] = memory_gib - usable, memory_gib / usable - 1
    for c in problem.constraints:
        if c.metric in found and c.of_file is None and not c.soft:
            reference = float(getattr(baseline, c.metric))
            excess = c.violation(found[c.metric], reference)
            if excess > 0:
                missed[c.text] = excess, excess / c.limit(reference)
    return missed


def feasible(problem: Problem, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates that keep every constraint. Raises: NothingFeasibleError naming the nearest miss."""

    def worst(candidate: Candidate) -> float:
        missed = problem.violations(problem.metrics(candidate))
        limits = {c.text: abs(problem.limit(c)) for c in problem.constraints if not c.soft}
        return max((missed[text] / limit for text, limit in limits.items() if text in missed), default=0.0)

    kept = [candidate for candidate in candidates if worst(candidate) <= 0]
    if kept:
        return kept
    if not candidates:
        raise _nothing_fits(problem)
    nearest = min(candidates, key=worst)
    raise _infeasible(problem, nearest, problem.violations(problem.metrics(nearest)))


def _nothing_fits(problem: Problem) -> NothingFeasibleError:
    """Where no candidate is left to time: the one that is nearest to the limits on memory and params."""
    survey = problem.space.survey
    costs = cost_of_candidates(survey, problem.workload)
    missed = [_misses(problem, *size) for size in zip(costs.memory_gib.tolist(), costs.params.tolist(), strict=True)]
    if not all(missed):
        return NothingFeasibleError(
            f"no candidate of {problem.space.name} has a latency on {', '.join(problem.devices)}: {NO_LATENCY}"
        )
    worst = [max(share for _, share in each.values()) for each in missed]
    place = worst.index(min(worst))
    return _infeasible(problem, survey[place], {text: excess for text, (excess, _) in missed[place].items()})


def _infeasible(problem: Problem, nearest: Candidate, violations: Mapping[str, float]) -> NothingFeasibleError:
    detail = "; ".join(f"{text!r} is missed by {excess:.4g}" for text, excess in violations.items() if excess > 0)
    return NothingFeasibleError(
        f"no candidate of {problem.space.name} meets the constraints; nearest: {nearest}: {detail}"
    )


def landmarks(candidates: list[Candidate], size_of: Callable[[Candidate], float]) -> list[Candidate]:
    """Smallest, largest and middle: the first three candidates of every search."""
    ordered = sorted(candidates, key=lambda candidate: (size_of(candidate), candidate.key))
    found = {c.key: c for c in (ordered[0], ordered[-1], ordered[len(ordered) // 2])}
    return list(found.values())
