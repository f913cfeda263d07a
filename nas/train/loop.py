"""One fixed recipe: encoder frozen with cached tokens, projector and decoder layers trained on answers only."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.model import MultimodalLM, Processor
from nas.train.data import Question


@dataclass(frozen=True, slots=True)
class Recipe:
    """What every finalist of a run is trained by. Published in its report."""

    steps: int = 120
    batch: int = 32
    lm_rate: float = 3e-4
    projector_rate: float = 1e-3
    warmup: float = 0.1
    open_share: float = 0.75  # of the training examples; yes/no questions are mostly answerable blind
    seed: int = 0


def train(
    model: MultimodalLM,
    processor: Processor,
    questions: Sequence[Question],
    features: Tensor,
    recipe: Recipe,
    on_step: Callable[[int, float], None],
) -> list[tuple[int, float]]:
    """Trains in place; (step, loss) of every step. AdamW, linear warm-up, cosine decay, bfloat16 autocast."""
    torch.manual_seed(recipe.seed)
    model.train()
    model.vision.eval().requires_grad_(False)
    if model.language_spec.weights is not None:  # a pretrained vocabulary stays: it is most of the weights
        model.get_input_embeddings().requires_grad_(False)
    groups = [
        {"params": list(model.projector.parameters()), "lr": recipe.projector_rate},
        {"params": [w for w in model.language_model.parameters() if w.requires_grad], "lr": recipe.lm_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    losses = []
    draw = Sampler(questions, recipe)
    for step in range(recipe.steps):
        loss = answer_loss(model, processor, draw.batch(), features)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([w for group in groups for w in group["params"]], 1.0)  # type: ignore[attr-defined]
        optimizer.step()
        schedule.step()
        losses.append((step + 1, float(loss.detach())))
        on_step(*losses[-1])
    model.eval()  # type: ignore[no-untyped-call]
    return losses


def _rate(step: int, recipe: Recipe) -> float:
    warm = max(1, round(recipe.warmup * recipe.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, recipe.steps - warm)))


class Sampler:
    """Endless batches: open questions first in each batch, by the recipe's share."""

    def __init__(self, questions: Sequence[Question], recipe: Recipe) -> None:
        self.generator = random.Random(recipe.seed)
        self.open = [question for question in questions if question.is_open]
        self.closed = [question for question in questions if not question.is_open]
        self.counts = (round(recipe.batch * recipe.open_share), recipe.batch - round(recipe.batch * recipe.open_share))

    def batch(self) -> list[Question]:
        pools = zip((self.open, self.closed), self.counts, strict=True)
        return [self.generator.choice(pool) for pool, count in pools if pool for _ in range(count)]


def answer_loss(model: MultimodalLM, processor: Processor, batch: Sequence[Question], features: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens; the vocabulary is computed at those positions only."""
    prompts = [processor.prompt(question.text) for question in batch]
    answers = [processor.answer(question.answer) for question in batch]
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    hidden = hidden_states(model, rows, features[[question.image for question in batch]])
    places = [(row, len(prompt) - 1 + offset) for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
              for offset in range(len(answer))]  # fmt: skip
    index = torch.tensor(places)
    logits = model.language_model.lm_head(hidden[index[:, 0], index[:, 1]].float())
    return torch.nn.functional.cross_entropy(logits, torch.tensor([token for answer in answers for token in answer]))


def hidden_states(model: MultimodalLM, rows: Sequence[list[int]], tokens: Tensor) -> Tensor:
    """Last hidden states (B, T, H). Padding stands on the right, where causal attention never looks back from."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        visual = model.project_tokens(tokens.float())
        embedded = model.embed(ids, visual.float())
        states: Tensor = model.language_model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return states
