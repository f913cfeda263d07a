"""A user's own clips and pictures: their split, what is refused, and clips that last unequally many windows."""

from __future__ import annotations

import json
import random
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cli.main import build_app
from nas import report
from nas.errors import ConfigError
from nas.export import load_export
from nas.model import Processor, build
from nas.model.sound import SAMPLES_PER_S
from nas.run_folder import RunFolder
from nas.train import llava, own_data
from nas.train.features import encoder_features
from nas.train.packing import Pack, hidden_states, question_ids
from search_spaces import Candidate

FIELDS: dict[str, Any] = {
    "encoder": "whisper-micro", "resolution": 100, "projector": "mlp", "compression": "pixel-shuffle",
    "compression_factor": 5, "lm": "llama-micro", "lm_depth": 1,
}  # fmt: skip
HEARD = Candidate.model_validate(FIELDS)
CROSSED = Candidate.model_validate(
    FIELDS | {"projector": "cross-attention", "compression": "none", "compression_factor": 1}
)
TONES = {"low": 220, "high": 1760}


def write(folder: Path, answer: Callable[[int, str], str] = lambda number, pitch: pitch, clips: int = 40) -> Path:
    """Tones of one to three seconds, in noise."""
    draw, entries = random.Random(0), []
    for number in range(clips):
        pitch = draw.choice(list(TONES))
        time = np.arange(round(draw.uniform(0.5, 3) * SAMPLES_PER_S)) / SAMPLES_PER_S
        sound = np.sin(2 * np.pi * TONES[pitch] * time) + 0.1 * np.random.default_rng(number).normal(size=len(time))
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, SAMPLES_PER_S, 0, "NONE", ""))
            file.writeframes((sound * 2**13).astype("<i2").tobytes())
        said = [{"from": "human", "value": "<sound>\npitch?"}, {"from": "gpt", "value": answer(number, pitch)}]
        entries.append({"sound": f"{number}.wav", "conversations": said})
    (folder / "data.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tones"))


def test_a_fifth_of_the_files_is_held_out_with_all_that_is_asked_of_them(tones: Path) -> None:
    data = own_data.load(tones, hears=True)
    assert (len(data.train.images), len(data.test.images)) == (32, 8)
    assert not {*data.train.images} & {*data.test.images}
    assert len(data.train.questions) == 32
    assert data.answers == ["high", "low"]
    few = own_data.load(tones, hears=True, most=12)
    assert (len(few.train.images), few.test) == (12, data.test)


def test_data_that_cannot_be_trained_on_is_refused_in_a_line(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has sound \(\d+.wav\), but the encoder takes pictures"):
        own_data.load(tones, hears=False)
    with pytest.raises(ConfigError, match="must hold 10 pictures or clips or more, but holds 4"):
        own_data.load(write(tmp_path, clips=4), hears=True)
    with pytest.raises(ConfigError, match=r"answers 0 of 8 held-out questions .* `nas train EXPORT --data DIR`"):
        own_data.load(write(tmp_path, lambda number, _: f"clip {number}"), hears=True)
    with pytest.raises(ConfigError, match="must ask what is not answered by yes or no"):
        own_data.load(write(tmp_path, lambda *_: "yes"), hears=True)


@pytest.mark.parametrize("candidate", [HEARD, CROSSED], ids=str)
def test_clips_of_unequally_many_windows_are_packed_as_they_are_asked(
    candidate: Candidate, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack has the hidden states that a request with all windows of its clip has."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    model, processor = build(candidate, weights="random"), Processor.of(candidate)
    for gate in (weight for name, weight in model.named_parameters() if name.endswith("_gate")):
        torch.nn.init.ones_(gate)
    split = own_data.load(tones, hears=True).test
    features = encoder_features(model, processor, split, 0, lambda *_: None)
    texts = [question_ids(processor, text) for text in ("pitch?", "what is heard?")]
    with torch.inference_mode():
        found = hidden_states(model, processor, [Pack(clip, texts) for clip in range(8)], features)
        for clip, file in enumerate(split.images):
            read = processor.read(file)
            ids = torch.tensor([processor.prompt("what is heard?", processor.fitted_tokens(read))])
            visual = model.encode_images(processor.pixels([read], fit=True))
            with model.seeing(visual):
                alone = model.decoder(inputs_embeds=model.embed(ids, visual), use_cache=False).last_hidden_state
            states = found[2 * clip + 1]
            torch.testing.assert_close(states.float(), alone[0, -len(states) :], rtol=0.1, atol=0.1)
    assert {len(processor.pixels([processor.read(file)], fit=True)) for file in split.images} == {1, 2, 3}


@pytest.mark.parametrize("candidate", [HEARD, CROSSED], ids=str)
def test_the_loss_of_a_batch_is_the_mean_over_its_clips_whatever_they_last(candidate: Candidate, tones: Path) -> None:
    model, processor = build(candidate, weights="random"), Processor.of(candidate)
    batch = llava.read_conversations(tones)[:6]
    with torch.inference_mode():
        together = llava._loss(model, processor, batch)
        each = [llava._loss(model, processor, [one]) for one in batch]
    counts = [len(processor.answer(one.turns[0][1])) for one in batch]
    expected = sum(float(loss) * count for loss, count in zip(each, counts, strict=True)) / sum(counts)
    assert float(together) == pytest.approx(expected, rel=1e-4)


def test_a_model_of_pictures_is_not_trained_on_sound(tones: Path) -> None:
    seen = Candidate.model_validate(FIELDS | {"encoder": "vit-micro", "resolution": 64, "compression_factor": 4})
    stages = llava.Stages(stages=[llava.Stage(name="all", trains=["projector"], steps=1, batch=1, rate=1e-3)])
    with pytest.raises(ConfigError, match=r"takes 'image' in every conversation, but 0.wav is none"):
        llava.train_stages(
            build(seen, weights="random"),
            Processor.of(seen),
            llava.read_conversations(tones),
            stages,
            0,
            lambda *_: None,
        )


def heard(folder: Path) -> list[str]:
    """A search over six designs that hear, by estimates, into `folder`/one."""
    axes = {
        "encoder": "[whisper-micro]", "encoder_depth": "[0]", "resolution": "[100, 300]", "projector": "[mlp]",
        "compression": "[pixel-shuffle]", "compression_factor": "[5]", "lm": "[llama-micro]", "lm_depth": "[1, 2, 3]",
        "prune_layer": "[0]", "lm_weights": "[native]",
    }  # fmt: skip
    settings = [part for name, values in axes.items() for part in ("--set", f"space.axes.{name}={values}")]
    device = ["--device", "raspberry-pi-5-8gb"]
    return ["search", "--space", "audio-edge", *device, *settings, "--out", str(folder), "--study", "one"]


def test_a_search_trains_its_finalists_on_clips_and_they_tell_tones_apart(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    asked = [*heard(tmp_path), "--data", str(tones), "--trials", "2", "--finalists", "1", "--train-steps", "60"]
    found = CliRunner().invoke(build_app(), asked)
    assert found.exit_code == 0, found.output
    (record,) = [json.loads(file.read_text()) for file in tmp_path.glob("one/finalists/*/training.json")]
    assert record["data"] == tones.name
    assert record["accuracy_open"] > record["blind_open"]
    assert "nas ask THIS_FOLDER clip.wav 'pitch?'" in (tmp_path / "one" / "export" / "README.md").read_text()
    assert "shape is in the image" not in (tmp_path / "one" / "report.html").read_text()
    model, processor = load_export(tmp_path / "one" / "export")
    assert model.encoder_spec.mels == processor.mels == 80


def test_anchors_that_hear_are_trained_on_clips_and_refused_without_any(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    asked = [*heard(tmp_path), "--anchors", "5", "--trials", "1", "--finalists", "0", "--train-steps", "2"]
    refused = CliRunner().invoke(build_app(), asked)
    assert isinstance(refused.exception, ConfigError)
    assert "--data" in str(refused.exception)
    found = CliRunner().invoke(build_app(), [*asked, "--data", str(tones)])
    assert found.exit_code == 0, found.output
    document = report.document(RunFolder(tmp_path / "one"))
    assert {one["quality"]["label"] for one in document["front"]} == {"predicted:anchored"}
    assert document["search"]["anchors"] == 5
