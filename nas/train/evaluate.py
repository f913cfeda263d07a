"""Accuracy on held-out images: the model picks among the answers known from training, token by token."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.model import MultimodalLM, Processor
from nas.train.data import Question
from nas.train.features import Clips
from nas.train.packing import Pack, hidden_states, question_ids

BATCH = 16  # images


def predict(
    model: MultimodalLM,
    processor: Processor,
    questions: Sequence[Question],
    features: Tensor | Clips,
    answers: Sequence[str],
) -> list[str]:
    """The answer to each question, by greedy decoding restricted to the known answers."""
    coded = {answer: processor.answer(answer) for answer in answers}
    by_image: dict[int, list[int]] = defaultdict(list)
    for place, question in enumerate(questions):
        by_image[question.image].append(place)
    images = sorted(by_image)
    found = [""] * len(questions)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            groups = [(image, by_image[image]) for image in images[start : start + BATCH]]
            places = [place for _, group in groups for place in group]
            texts = [question_ids(processor, questions[place].text) for place in places]
            sizes = [(image, len(group)) for image, group in groups]
            for place, answer in zip(places, _decode(model, processor, sizes, texts, features, coded), strict=True):
                found[place] = answer
    return found


def _decode(
    model: MultimodalLM,
    processor: Processor,
    sizes: Sequence[tuple[int, int]],
    texts: list[list[int]],
    features: Tensor | Clips,
    coded: dict[str, list[int]],
) -> list[str]:
    """One answer a text; `sizes` says how many texts each image has."""
    alive = [list(coded) for _ in texts]
    depth = 0
    while any(len(options) > 1 for options in alive):
        following = iter(texts)
        packs = [Pack(image, [next(following) for _ in range(count)]) for image, count in sizes]
        last = torch.stack([state[-1] for state in hidden_states(model, processor, packs, features)])
        logits = model.vocabulary_logits(last.float())
        for row, options in enumerate(alive):
            if len(options) > 1:
                nexts = sorted({coded[answer][depth] for answer in options})
                chosen = nexts[int(logits[row, nexts].argmax())]
                alive[row] = [answer for answer in options if coded[answer][depth] == chosen]
                texts[row] = [*texts[row], chosen]
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
