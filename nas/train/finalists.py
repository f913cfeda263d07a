"""Trains finalists, all by one recipe; a finished one is never trained again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from nas.model import Processor, build
from nas.model.quantised import quantise
from nas.records import Training
from nas.train import data as vqa
from nas.train.evaluate import predict, wilson
from nas.train.features import encoder_features
from nas.train.loop import train
from nas.train.recipe import Recipe
from search_spaces import Candidate

RESULT_FILE = "training.json"
Progress = Callable[[str, int, int, float | None], None]  # what, done, of, loss
LOSS_POINTS = 40


def train_finalist(
    candidate: Candidate, recipe: Recipe, data: vqa.VqaData, folder: Path, progress: Progress = lambda *_: None,
    *, keep_weights: bool = True,
) -> Training:  # fmt: skip
    """The trained model lies in `folder` (reload with nas.export.load_export), unless only its record is wanted."""
    result = folder / RESULT_FILE
    if result.is_file():
        return Training.from_dict(json.loads(result.read_text(encoding="utf-8")))
    start = time.monotonic()
    model, processor = build(candidate, seed=recipe.seed, quantised=False), Processor.of(candidate)
    features = {
        split.name: encoder_features(
            model, processor, split, recipe.seed, lambda done, of: progress("features", done, of, None)
        )
        for split in (data.train, data.test)
    }
    losses = train(
        model, processor, data.train.questions, features["train"], recipe,
        lambda step, loss: progress("step", step, recipe.steps, loss),
    )  # fmt: skip
    train_s = time.monotonic() - start
    quantise(model.language_model, candidate.lm_weights)
    guesses = predict(model, processor, data.test.questions, features["test"], data.answers)
    right = [guess == question.answer for guess, question in zip(guesses, data.test.questions, strict=True)]
    on_open = [claim for claim, question in zip(right, data.test.questions, strict=True) if question.is_open]
    low, high = wilson(sum(on_open), len(on_open))
    training = Training(
        key=candidate.key, label="trained:short", data=data.name, seed=recipe.seed, steps=recipe.steps,
        samples_seen=recipe.steps * recipe.images * recipe.questions, train_s=train_s, accuracy_open=vqa.share(on_open),
        blind_open=data.blind[0], accuracy_all=vqa.share(right), blind_all=data.blind[1],
        open_questions=len(on_open), low=low, high=high, losses=_thin(losses), 
        checkpoint=folder.name if keep_weights else None,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    if keep_weights:
        model.save_pretrained(folder)
        processor.save(folder)
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(training), indent=2), encoding="utf-8")
    partial.replace(result)
    return training


def _thin(losses: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most LOSS_POINTS points, each the mean loss since the one before."""
    size = max(1, -(-len(losses) // LOSS_POINTS))
    chunks = [losses[start : start + size] for start in range(0, len(losses), size)]
    return [(chunk[-1][0], sum(loss for _, loss in chunk) / len(chunk)) for chunk in chunks]
