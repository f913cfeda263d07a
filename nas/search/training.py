"""Trains candidates of a run by its one recipe; what is in the store is not trained again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from nas.config import TRAIN_IMAGES
from nas.errors import ConfigError
from nas.records import Training
from nas.run_folder import RunFolder
from nas.search.problem import Problem
from nas.store import Store
from search_spaces import Candidate

if TYPE_CHECKING:
    from nas.train.data import VqaData

SILENT = (
    "designs that hear are trained on clips of yours: give --data FOLDER of WAV files and LLaVA JSON, or train "
    "nothing (--finalists 0)"
)
# What a training can fail of by its candidate; the others go on.
TRAINING_ERRORS = (RuntimeError, ValueError, MemoryError, FloatingPointError)


@lru_cache(maxsize=1)
def training_data(folder: str | None, *, hears: bool, most: int = TRAIN_IMAGES) -> VqaData:
    """What every training of a run is of: the user's own files, else pictures of easy-vqa, a quarter as many held out.

    `most`: files that are trained on. A folder is read and hashed once; a run is of what was there when it began.

    Raises: ConfigError where the designs hear, and there is nothing to hear.
    """
    if folder is not None:
        from nas.train import own_data

        return own_data.load(Path(folder), hears=hears, most=most)
    if hears:
        raise ConfigError(SILENT)
    from nas.train import data as vqa

    return vqa.load(train_images=most, test_images=max(10, most // 4))


def train_all(
    problem: Problem,
    folder: RunFolder,
    store: Store,
    candidates: Mapping[str, Candidate],
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
    *,
    what: str,
    keep_weights: bool = True,
) -> dict[str, Training]:
    """By key. A candidate whose training fails is told of and left out; the others go on."""
    from nas.train.finalists import train_finalist
    from nas.train.recipe import Recipe

    config = problem.config
    data = training_data(config.data, hears=problem.hears, most=config.train_images)
    recipe = Recipe(steps=config.train_steps, seed=config.seed)
    done = {
        key: one for key, one in store.trainings(folder.study).items() if one.checkpoint is not None or not keep_weights
    }
    for number, (key, candidate) in enumerate(candidates.items(), 1):
        if key in done:
            continue

        def hear(kind: str, step: int, of: int, loss: float | None, number: int = number) -> None:
            progress(f"{what} {number}/{len(candidates)} {kind}", step, of)

        place = folder.finalist(key) if keep_weights else folder.path / "anchors" / key
        try:
            training = train_finalist(candidate, recipe, data, place, hear, keep_weights=keep_weights)
        except TRAINING_ERRORS as error:
            say(f"FAILED       {what} {key} {candidate}: {type(error).__name__}: {error}")
            continue
        store.add_training(folder.study, training)
        done[key] = training
        say(
            f"trained      {key} {candidate}: open accuracy {training.accuracy_open:.3f} "
            f"[{training.low:.3f}, {training.high:.3f}] {training.label}, blind {training.blind_open:.3f}, "
            f"{training.train_s:.0f} s"
        )
    return {key: done[key] for key in candidates if key in done}
