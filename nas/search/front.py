"""The front of what a run has evaluated. It loads no torch: every report asks for it."""

from __future__ import annotations

from collections.abc import Sequence

from nas import pareto
from nas.records import Evaluation
from nas.search.problem import Problem
from search_spaces import Candidate


def front(problem: Problem, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The feasible, non-dominated evaluations, best first objective first."""
    complete = [evaluation for evaluation in evaluations if evaluation.status == "complete"]
    points = [problem.maximised(problem.metrics(Candidate.model_validate(e.candidate))) for e in complete]
    return [complete[index] for index in pareto.front(points)]
