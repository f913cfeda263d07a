"""The gate: which candidates of a space can keep the limits, before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nas import constraints
from nas.cost import cost
from nas.cost_many import cost_of_candidates
from nas.errors import NothingFeasibleError
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
    if not all(profile.has_room(memory_gib) for profile in problem.profiles.values()):
        return False
    found, baseline = {"memory_gib": memory_gib, "params": float(params)}, cost(problem.baseline, problem.workload)
    simple = [c for c in problem.constraints if c.metric in found and c.of_file is None and not c.soft]
    return all(c.violation(found[c.metric], float(getattr(baseline, c.metric))) <= 0 for c in simple)


def feasible(problem: Problem, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates that keep every constraint. Raises: NothingFeasibleError naming the nearest miss."""

    def worst(candidate: Candidate) -> float:
        missed = problem.violations(problem.metrics(candidate))
        limits = {
            c.text: abs(c.limit(constraints.value_of(problem.baseline_metrics, c, problem.devices[0])))
            for c in problem.constraints
            if not c.soft
        }
        return max((missed[text] / limit for text, limit in limits.items() if text in missed), default=0.0)

    kept = [candidate for candidate in candidates if worst(candidate) <= 0]
    if not kept:
        if not candidates:
            raise NothingFeasibleError(
                "no candidate fits the memory or params limits; loosen them or choose a smaller space"
            )
        nearest = min(candidates, key=worst)
        missed = {text: excess for text, excess in problem.violations(problem.metrics(nearest)).items() if excess > 0}
        detail = "; ".join(f"{text!r} is missed by {excess:.4g}" for text, excess in missed.items())
        raise NothingFeasibleError(
            f"no candidate of {problem.space.name} meets the constraints; nearest: {nearest}: {detail}"
        )
    return kept


def landmarks(candidates: list[Candidate], size_of: Callable[[Candidate], float]) -> list[Candidate]:
    """Smallest, largest and middle: the first three candidates of every search."""
    ordered = sorted(candidates, key=lambda candidate: (size_of(candidate), candidate.key))
    found = {c.key: c for c in (ordered[0], ordered[-1], ordered[len(ordered) // 2])}
    return list(found.values())
