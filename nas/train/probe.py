"""A probe batch of real images with their questions and answers, for proxies that read weights or labels."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.model import Processor
from nas.train.data import Question
from proxies.batch import IGNORED, ProbeBatch


def question_batch(
    processor: Processor, questions: Sequence[Question], pixels: Tensor, features: Tensor | None, *, size: int,
    seed: int = 0,
) -> ProbeBatch:  # fmt: skip
    """`size` questions of different images, padded on the right; the answers are the labels.

    `pixels` (images, 3, R, R); `features` (images, N, D), where the encoder's tokens are known already.
    """
    shuffled = random.Random(seed).sample(list(questions), len(questions))
    chosen = list({question.image: question for question in shuffled}.values())[:size]
    asked = [processor.prompt(question.text) for question in chosen]
    answered = [processor.answer(question.answer) for question in chosen]
    longest = max(len(a) + len(b) for a, b in zip(asked, answered, strict=True))
    ids = torch.full((len(chosen), longest), processor.end_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, (ask, answer) in enumerate(zip(asked, answered, strict=True)):
        end = len(ask) + len(answer)
        ids[row, :end], mask[row, :end] = torch.tensor(ask + answer), 1
        labels[row, len(ask) : end] = torch.tensor(answer)
    places = [question.image for question in chosen]
    seen = None if features is None else features[places].float()
    return ProbeBatch(pixels[places].float(), ids, mask, labels, seen, processor.image_token_id)
