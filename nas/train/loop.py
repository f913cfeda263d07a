"""One fixed recipe: encoder frozen with cached tokens, projector and decoder layers trained on answers only."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nas.model import MultimodalLM, Processor
from nas.train.data import CAPTION, Question
from nas.train.features import Clips
from nas.train.nested import drawn_scale
from nas.train.packing import Pack, hidden_states, question_ids
from nas.train.recipe import Recipe


def train(
    model: MultimodalLM,
    processor: Processor,
    questions: Sequence[Question],
    features: Tensor | Clips,
    recipe: Recipe,
    on_step: Callable[[int, float], None],
) -> list[tuple[int, float]]:
    """Trains in place; (step, loss) of every step. AdamW, linear warm-up, cosine decay, bfloat16 where it is fast."""
    torch.manual_seed(recipe.seed)
    model.train()
    from_scratch = not isinstance(features, Clips) and features.ndim == 4  # pixels: the encoder learns too
    model.vision.train(from_scratch).requires_grad_(from_scratch)
    if model.language_spec.weights is not None:  # a pretrained vocabulary stays: it is most of the weights
        model.get_input_embeddings().requires_grad_(False)
    seen = [weight for weight in model.vision.parameters() if weight.requires_grad]
    groups = [
        {"params": [*model.projector.parameters(), *seen], "lr": recipe.projector_rate},
        {"params": [w for w in model.language_model.parameters() if w.requires_grad], "lr": recipe.lm_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, recipe.steps, recipe.warmup))
    losses = []
    draw, scales = Sampler(questions, recipe), random.Random(recipe.seed)
    for step in range(recipe.steps):
        with drawn_scale(model, processor, scales) as drawn:
            loss = answer_loss(model, drawn, draw.batch(), features)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([w for group in groups for w in group["params"]], 1.0)  # type: ignore[attr-defined]
        optimizer.step()
        schedule.step()
        losses.append((step + 1, float(loss.detach())))
        on_step(*losses[-1])
    model.eval()  # type: ignore[no-untyped-call]
    return losses


def rate_share(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: linear warm-up over the share `warmup` of the steps, then half a cosine."""
    warm = max(1, round(warmup * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Sampler:
    """Endless steps of `recipe.images` images with their captions and some of their questions, mostly open ones."""

    def __init__(self, questions: Sequence[Question], recipe: Recipe) -> None:
        self.recipe = recipe
        self.generator = random.Random(recipe.seed)
        self.by_image: dict[int, tuple[list[Question], list[Question], list[Question]]] = defaultdict(
            lambda: ([], [], [])
        )
        for question in questions:
            kind = 2 if question.kind == CAPTION else 0 if question.is_open else 1
            self.by_image[question.image][kind].append(question)
        self.queue: list[int] = []

    def batch(self) -> list[list[Question]]:
        """The questions of each image of one step; every image once before any comes again."""
        return [self._questions(self._next_image()) for _ in range(self.recipe.images)]

    def _next_image(self) -> int:
        if not self.queue:
            self.queue = sorted(self.by_image)
            self.generator.shuffle(self.queue)
        return self.queue.pop()

    def _questions(self, image: int) -> list[Question]:
        open_, closed, captions = self.by_image[image]
        wanted = round(self.recipe.questions * self.recipe.open_share)
        chosen = self.generator.sample(open_, min(wanted, len(open_)))
        chosen += self.generator.sample(closed, min(self.recipe.questions - len(chosen), len(closed)))
        return captions + chosen


def answer_loss(
    model: MultimodalLM, processor: Processor, batch: Sequence[Sequence[Question]], features: Tensor | Clips
) -> Tensor:
    """Mean cross-entropy of the answers' tokens; the vocabulary is computed at those positions only."""
    asked = [question for group in batch for question in group]
    answers = [processor.answer(question.answer) for question in asked]
    texts = iter([question_ids(processor, q.text) + answer[:-1] for q, answer in zip(asked, answers, strict=True)])
    packs = [Pack(group[0].image, [next(texts) for _ in group]) for group in batch]
    states = hidden_states(model, processor, packs, features)
    before = [state[-len(answer) :] for state, answer in zip(states, answers, strict=True)]
    logits = model.vocabulary_logits(torch.cat(before).float())
    return torch.nn.functional.cross_entropy(logits, torch.tensor([token for answer in answers for token in answer]))
