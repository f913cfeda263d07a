"""Accuracy on held-out images: the model picks among the answers known from training, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.model import MultimodalLM, Processor
from nas.train.data import Question
from nas.train.loop import hidden_states

BATCH = 64


def predict(
    model: MultimodalLM, processor: Processor, questions: Sequence[Question], features: Tensor, answers: Sequence[str]
) -> list[str]:
    """The answer to each question, by greedy decoding restricted to the known answers."""
    coded = {answer: processor.answer(answer) for answer in answers}
    found: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(questions), BATCH):
            found += _predict_batch(model, processor, questions[start : start + BATCH], features, coded)
    return found


def _predict_batch(
    model: MultimodalLM,
    processor: Processor,
    batch: Sequence[Question],
    features: Tensor,
    coded: dict[str, list[int]],
) -> list[str]:
    rows = [processor.prompt(question.text) for question in batch]
    alive = [list(coded) for _ in batch]
    depth = 0
    while any(len(options) > 1 for options in alive):
        hidden = hidden_states(model, rows, features[[question.image for question in batch]])
        last = torch.stack([hidden[row, len(ids) - 1] for row, ids in enumerate(rows)])
        logits = model.language_model.lm_head(last.float())
        for row, options in enumerate(alive):
            nexts = sorted({coded[answer][depth] for answer in options})
            chosen = nexts[int(logits[row, nexts].argmax())]
            alive[row] = [answer for answer in options if coded[answer][depth] == chosen]
            rows[row] = [*rows[row], chosen]
        depth += 1
    return [options[0] for options in alive]


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    z, p = 1.959964, right / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
