"""Visual question answering data; easy-vqa: questions about images of a pip package, with its own split by image."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from nas.errors import MissingPackageError

YES_NO = {"yes", "no"}
CAPTION = "caption"  # a kind of training alone: the picture in words


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one image; `image` is an index into the split's images."""

    image: int
    text: str
    answer: str
    kind: str = ""

    @property
    def is_open(self) -> bool:
        """Not a yes/no question: those are four fifths guessable from the text."""
        return self.answer not in YES_NO


@dataclass(frozen=True)
class Split:
    """Images, or clips of sound, and the questions about them."""

    name: str
    images: tuple[Path, ...]
    questions: tuple[Question, ...]
    digest: str = ""  # of the files, where they may change under their names


@dataclass(frozen=True)
class VqaData:
    """Train and test never share an image."""

    name: str
    train: Split
    test: Split

    @cached_property
    def answers(self) -> list[str]:
        """Every answer seen in training, sorted; captions are none."""
        return sorted({question.answer for question in self.train.questions if question.kind != CAPTION})

    @cached_property
    def blind_by_kind(self) -> dict[str, float]:
        """Accuracy on each kind of test question of the majority training answer to its text."""
        found: dict[str, list[bool]] = defaultdict(list)
        for question in self.test.questions:
            found[question.kind].append(self._blind_answer(question.text) == question.answer)
        return {kind: share(right) for kind, right in found.items()}

    @cached_property
    def blind(self) -> tuple[float, float]:
        """(open, all) accuracy on the test split of the majority training answer to each question text."""
        right = [self._blind_answer(question.text) == question.answer for question in self.test.questions]
        claims = list(zip(right, self.test.questions, strict=True))
        return share(claim for claim, question in claims if question.is_open), share(right)

    def _blind_answer(self, text: str) -> str:
        known = self._majority
        return known.get(text, known[""])

    @cached_property
    def _majority(self) -> dict[str, str]:
        """The most frequent training answer to each question text; to all of them under the empty text."""
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for question in self.train.questions:
            if question.kind == CAPTION:
                continue
            seen[question.text][question.answer] += 1
            seen[""][question.answer] += 1
        return {text: answers.most_common(1)[0][0] for text, answers in seen.items()}


def joined(name: str, *sets: VqaData) -> VqaData:
    """Several sets as one, their splits kept apart."""
    return VqaData(name, _chain([one.train for one in sets]), _chain([one.test for one in sets]))


def _chain(splits: Sequence[Split]) -> Split:
    images: list[Path] = []
    questions: list[Question] = []
    for split in splits:
        questions += [replace(question, image=question.image + len(images)) for question in split.questions]
        images += split.images
    return Split(splits[0].name, tuple(images), tuple(questions))


def share(claims: object) -> float:
    """Share of true claims; 0 of none."""
    values = [bool(claim) for claim in claims]  # type: ignore[attr-defined]
    return sum(values) / len(values) if values else 0.0


def load(train_images: int = 1200, test_images: int = 300, seed: int = 0) -> VqaData:
    """A seeded choice of images of each split, with all their questions. Raises: MissingPackageError."""
    try:
        import easy_vqa
    except ImportError:
        raise MissingPackageError("training needs the package 'easy-vqa'; run: pip install easy-vqa") from None
    generator = random.Random(seed)
    train = _split("train", easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths(), train_images, generator)
    test = _split("test", easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths(), test_images, generator)
    return VqaData("easy-vqa", train, test)


def _split(
    name: str, rows: tuple[list[str], list[str], list[int]], paths: dict[int, str], count: int, generator: random.Random
) -> Split:
    chosen = sorted(generator.sample(sorted(paths), min(count, len(paths))))
    place = {image: index for index, image in enumerate(chosen)}
    questions = [
        Question(place[image], text, answer, _kind(answer))
        for text, answer, image in zip(*rows, strict=True)
        if image in place
    ]
    return Split(name, tuple(Path(paths[image]) for image in chosen), tuple(questions))


def _kind(answer: str) -> str:
    if answer in YES_NO:
        return "easy-yes-no"
    return "easy-shape" if answer in {"circle", "rectangle", "triangle"} else "easy-colour"
