"""An export is trained by its own recipe on a folder of LLaVA JSON, from the command line to a new export."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from cli.main import build_app
from nas.errors import ConfigError, StorageError
from nas.export import RECIPE_FILE, load_export
from nas.model import Processor, build
from nas.train import llava
from nas.train.nested import drawn_scale
from search_spaces.candidate import Candidate

CANDIDATE = Candidate(
    encoder="conv-micro", resolution=64, projector="mlp", compression="avgpool", compression_factor=4,
    lm="llama-micro", lm_depth=2,
)  # fmt: skip
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of one colour each, two turns about each."""
    data = tmp_path_factory.mktemp("data")
    entries = []
    for index in range(6):
        colour = COLOURS[index % 3]
        Image.new("RGB", (40, 40), colour).save(data / f"{index}.png")
        talk = ["<image>\nWhat colour?", colour, "Is it a dog?", "no"]
        said = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(talk)]
        entries.append({"id": str(index), "image": f"{index}.png", "conversations": said})
    (data / "train.json").write_text(json.dumps(entries))
    return data


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("export")
    (base / "candidate.yaml").write_text(yaml.safe_dump(CANDIDATE.to_dict()))
    found = CliRunner().invoke(build_app(), ["export", str(base / "candidate.yaml"), "--to", str(base / "model")])
    assert found.exit_code == 0, found.output
    return base / "model"


def test_an_export_is_trained_by_its_recipe_from_the_command_line(exported: Path, folder: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        str(exported),
        "--data",
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--steps",
        "8",
        "--json",
    ]
    found = CliRunner().invoke(build_app(), arguments)
    assert found.exit_code == 0, found.output
    record = json.loads(found.stdout)
    assert list(record) == ["alignment", "instruction"]
    before, after = (load_export(path)[0].state_dict() for path in (exported, tmp_path / "out"))
    changed = {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {"projector", "language_model"}
    assert "| alignment.last_loss |" in (tmp_path / "out" / "README.md").read_text()
    again = CliRunner().invoke(build_app(), arguments)
    assert "alignment" not in again.output  # it is refused before it trains
    assert isinstance(again.exception, StorageError) and "choose another" in str(again.exception)


def test_the_first_stage_trains_the_projector_alone_and_loss_falls(exported: Path, folder: Path) -> None:
    model, processor = load_export(exported)
    data = llava.read_conversations(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stage = llava.Stage(name="alignment", trains=["projector"], steps=3, batch=3, rate=1e-3)
    llava.train_stages(model, processor, data, llava.Stages(stages=[stage]), 0, lambda *_: None)
    changed = {n.split(".")[0] for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == {"projector"}
    everything = stage.model_copy(update={"trains": ["projector", "language_model"], "steps": 40, "rate": 3e-3})
    found = llava.train_stages(model, processor, data, llava.Stages(stages=[everything]), 0, lambda *_: None)
    assert found["alignment"]["last_loss"] < 0.5 * found["alignment"]["first_loss"]


def test_only_answers_carry_loss_and_the_image_stands_once(folder: Path) -> None:
    processor = Processor.of(CANDIDATE)
    ids, labels = llava.encode(processor, llava.read_conversations(folder)[0])
    assert ids.count(processor.image_token_id) == processor.visual_tokens
    said = [token for token in labels if token != llava.IGNORED]
    assert said == processor.answer("red") + processor.answer("no")
    assert [token for token, label in zip(ids, labels, strict=True) if label != llava.IGNORED] == said


def test_data_of_another_form_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold a JSON file in the LLaVA form"):
        llava.read_conversations(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for wrong in ([{"image": "b.png", "conversations": []}], [{"image": "a.png", "conversations": [{"from": "gpt"}]}]):
        (tmp_path / "a.json").write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=r"a.json must be a list of \{image, conversations"):
            llava.read_conversations(tmp_path)


def test_the_recipe_of_an_export_is_two_stages(exported: Path) -> None:
    stages = llava.read_stages(exported / RECIPE_FILE).stages
    assert [stage.trains for stage in stages] == [["projector"], ["projector", "language_model"]]


def test_a_nested_design_is_trained_at_every_scale_and_left_at_its_own(folder: Path) -> None:
    design = Candidate(
        encoder="vit-micro", resolution=64, projector="mlp", compression="matryoshka", compression_factor=4,
        lm="llama-micro", lm_depth=1,
    )  # fmt: skip
    model, processor, generator = build(design, weights="random"), Processor.of(design), random.Random(0)
    seen = set()
    for _ in range(12):
        with drawn_scale(model, processor, generator) as drawn:
            pixels = torch.zeros(1, 3, 64, 64)
            seen.add(drawn.visual_tokens)
            ids = torch.tensor([drawn.prompt("what?")])
            assert model(input_ids=ids, pixel_values=pixels).logits.shape[1] == ids.shape[1]
    assert seen == {16, 4, 1}
    assert (model.compressor.factor, processor.visual_tokens) == (4, 4)
    stage = llava.Stage(name="all", trains=["projector"], steps=4, batch=2, rate=1e-3)
    data = llava.read_conversations(folder)
    llava.train_stages(model, processor, data, llava.Stages(stages=[stage]), 0, lambda *_: None)
    assert (model.compressor.factor, processor.visual_tokens) == (4, 4)
