"""A user's own pictures or clips of sound, in the LLaVA JSON form, as training data with files that are held out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from nas.errors import ConfigError
from nas.train.data import Question, Split, VqaData
from nas.train.llava import Conversation, read_conversations

FEWEST_FILES = 10
HELD_OUT = 0.2  # of the files
KNOWN_ANSWERS = 0.5  # of the held-out questions: what training has not seen cannot be chosen


def load(folder: Path, *, hears: bool, most: int | None = None, seed: int = 0) -> VqaData:
    """Every turn as a question of its own; of each file all questions are in one split. `most`: files trained on.

    Accuracy counts answers chosen among those of training, so that they have to be short and to come back.

    Raises: ConfigError where files are of the other sense, too few, or asked what has no answer of that kind.
    """
    found = read_conversations(folder)
    for conversation in found:
        if conversation.hears != hears:
            has, takes = ("sound", "pictures") if conversation.hears else ("pictures", "sound")
            raise ConfigError(
                f"{folder} has {has} ({conversation.file.name}), but the encoder takes {takes}; give data of its kind"
            )
    files = sorted({conversation.file for conversation in found})
    if len(files) < FEWEST_FILES:
        raise ConfigError(f"{folder} must hold {FEWEST_FILES} pictures or clips or more, but holds {len(files)}")
    random.Random(seed).shuffle(files)
    held = max(1, round(HELD_OUT * len(files)))
    data = VqaData(
        folder.resolve().name,
        _split("train", files[held : None if most is None else held + most], found),
        _split("test", files[:held], found),
    )
    _check_answers(data, folder)
    return data


def example(folder: Path) -> tuple[Path, str]:
    """A file, and what is asked of it. Raises: ConfigError."""
    first = read_conversations(folder)[0]
    return first.file, first.turns[0][0]


def _split(name: str, files: Sequence[Path], conversations: Sequence[Conversation]) -> Split:
    places = {file: place for place, file in enumerate(sorted(files))}
    questions = [
        Question(places[one.file], question, answer)
        for one in conversations
        if one.file in places
        for question, answer in one.turns
    ]
    digest = sha256()
    for file in places:
        digest.update(file.read_bytes())
    return Split(name, tuple(places), tuple(questions), digest.hexdigest()[:10])


def _check_answers(data: VqaData, folder: Path) -> None:
    known, asked = set(data.answers), [question for question in data.test.questions if question.is_open]
    if not asked or not any(question.is_open for question in data.train.questions):
        raise ConfigError(
            f"{folder} must ask what is not answered by yes or no, for accuracy is that of open questions"
        )
    answered = sum(question.answer in known for question in asked)
    if answered < KNOWN_ANSWERS * len(asked):
        raise ConfigError(
            f"answers must come back, for accuracy is of choosing among them, but {folder} answers {answered} of "
            f"{len(asked)} held-out questions as in training; train an export instead: `nas train EXPORT --data DIR`"
        )
