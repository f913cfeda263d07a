"""How long the rest of a search will take on this machine: a rough estimate from closed-form cost and the canary.

Constants were fitted on one `pocket` run (60 trials, 3 finalists, 2 cores): building and scoring cost 36 ms per million
parameters at a canary of 1.31 ms; training ran at 0.65 and encoder features at 0.4 of the canary's FLOPs per second.
"""

from __future__ import annotations

from nas.cost import cost
from nas.search.problem import Problem
from nas.train.recipe import Recipe
from search_spaces import Candidate

CANARY_FLOPS = 2 * 512**3
TRIAL_S, TRIAL_S_PER_PARAM, REFERENCE_CANARY_MS = 0.15, 3.6e-8, 1.31
TRAIN_SHARE, FEATURE_SHARE = 0.65, 0.4
TEXT_TOKENS = 12  # of a question with its answer


def expected_seconds(problem: Problem, allowed: list[Candidate], canary_ms: float) -> tuple[float, float]:
    """(trials, anchors and finalists) in seconds, for what the configuration asks of one worker."""
    config, workload = problem.config, problem.workload
    costs = [cost(candidate, workload) for candidate in allowed]
    rate = CANARY_FLOPS / (canary_ms / 1e3)
    params = sum(item.params for item in costs) / len(costs)
    trial_s = TRIAL_S + TRIAL_S_PER_PARAM * params * canary_ms / REFERENCE_CANARY_MS
    recipe = Recipe(steps=config.train_steps)
    tokens = recipe.images * (sum(item.visual_tokens for item in costs) / len(costs) + recipe.questions * TEXT_TOKENS)
    body = sum(item.lm_body_params for item in costs) / len(costs)
    vision = sum(item.vision_flops for item in costs) / len(costs)
    training_s = recipe.steps * 6 * body * tokens / (TRAIN_SHARE * rate)
    features_s = 1.25 * config.train_images * vision / (FEATURE_SHARE * rate)
    return min(config.trials, len(allowed)) * trial_s / config.workers, (config.anchors + config.finalists) * (
        training_s + features_s
    )


def in_words(seconds: float) -> str:
    """`40 s` or `6 min`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
