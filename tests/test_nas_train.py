"""The recipe: packing changes nothing, the encoder stays, losses fall, the blind baseline is right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import search_spaces
from nas.model import Processor, build
from nas.train import data as vqa
from nas.train.evaluate import predict, wilson
from nas.train.finalists import train_finalist
from nas.train.loop import train
from nas.train.packing import Pack, hidden_states, question_ids
from nas.train.recipe import Recipe

pytest.importorskip("easy_vqa")
CANDIDATE = search_spaces.load("micro").decode(
    {
        "encoder": "conv-micro", "resolution": 64, "projector": "mlp", "compression": "none", "compression_factor": 1,
        "lm": "llama-micro", "lm_depth": 2,
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> vqa.VqaData:
    return vqa.load(train_images=24, test_images=12)


def test_train_and_test_share_no_image(data: vqa.VqaData) -> None:
    assert not {*data.train.images} & {*data.test.images}


def test_packed_questions_have_the_hidden_states_of_single_ones() -> None:
    model, processor = build(CANDIDATE), Processor.of(CANDIDATE)
    features = torch.randn(2, 16, 32)
    texts = [question_ids(processor, text) for text in ("what shape?", "is there a red circle?", "which colour is it?")]
    packs = [Pack(0, texts[:2]), Pack(1, texts[2:])]
    with torch.inference_mode():
        packed = hidden_states(model, processor, packs, features)
        single = [
            hidden_states(model, processor, [Pack(i, [t])], features)[0] for i, t in zip((0, 0, 1), texts, strict=True)
        ]
        ids = torch.tensor([processor.prompt("is there a red circle?")])
        whole = model.language_model.model(inputs_embeds=model.embed(ids, model.project_tokens(features[:1])))
    for together, alone in zip(packed, single, strict=True):
        torch.testing.assert_close(together, alone, rtol=0.02, atol=0.02)  # bfloat16
    torch.testing.assert_close(packed[1].float(), whole.last_hidden_state[0, 17:], rtol=0.1, atol=0.1)


def test_training_lowers_the_loss_and_leaves_the_encoder(data: vqa.VqaData) -> None:
    model, processor = build(CANDIDATE), Processor.of(CANDIDATE)
    before = {name: value.clone() for name, value in model.vision.state_dict().items()}
    features = torch.randn(len(data.train.images), 16, 32)
    losses = train(model, processor, data.train.questions, features, Recipe(steps=30), lambda *_: None)
    assert sum(loss for _, loss in losses[-5:]) < 0.9 * sum(loss for _, loss in losses[:5])
    assert all(torch.equal(value, before[name]) for name, value in model.vision.state_dict().items())


def test_predictions_are_always_known_answers(data: vqa.VqaData) -> None:
    model, processor = build(CANDIDATE), Processor.of(CANDIDATE)
    features = torch.randn(len(data.test.images), 16, 32)
    found = predict(model, processor, data.test.questions, features, data.answers)
    assert len(found) == len(data.test.questions)
    assert set(found) <= set(data.answers)


def test_the_blind_baseline_is_the_majority_answer_to_each_text() -> None:
    train_split = vqa.Split("train", (), tuple(vqa.Question(0, "q", answer) for answer in ("red", "red", "blue")))
    test_split = vqa.Split("test", (), (vqa.Question(0, "q", "red"), vqa.Question(0, "q", "blue")))
    assert vqa.VqaData("made", train_split, test_split).blind == (0.5, 0.5)


def test_wilson_interval_agrees_with_its_published_example() -> None:
    low, high = wilson(81, 263)  # Newcombe 1998, table I, method 3
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_a_finished_finalist_is_never_trained_again(
    tmp_path: Path, data: vqa.VqaData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    steps = []
    first = train_finalist(CANDIDATE, Recipe(steps=2), data, tmp_path / "one", lambda *a: steps.append(a))
    seen = len(steps)
    again = train_finalist(CANDIDATE, Recipe(steps=2), data, tmp_path / "one", lambda *a: steps.append(a))
    assert dataclasses.asdict(again) == dataclasses.asdict(first)
    assert len(steps) == seen
