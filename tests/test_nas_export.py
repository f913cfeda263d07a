"""An export gives the same logits back, answers questions, and says in one line what is wrong with a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from nas.ask import ask
from nas.errors import ConfigError, RunError, StorageError
from nas.export import checkpoint, export_hf, load_export
from nas.model import MultimodalLM, Processor, build
from search_spaces.candidate import Candidate

CANDIDATE = Candidate(
    encoder="vit-micro", resolution=64, projector="ldp-v2", compression="avgpool", compression_factor=4,
    lm="llama-micro", lm_depth=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> MultimodalLM:
    return build(CANDIDATE, weights="random", seed=7)


@pytest.fixture(scope="module")
def exported(model: MultimodalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("export") / "best"
    card = {"Quality": {"value": 0.5, "low": 0.4, "label": "trained:short"}, "Latency": {"cpu": {"ttft_ms": 12.25}}}
    assert export_hf(model, Processor.of(CANDIDATE), to, card=card) == 0.0
    return to


def test_transformers_auto_class_reloads_every_weight(exported: Path, model: MultimodalLM) -> None:
    from transformers import AutoModelForImageTextToText

    reloaded, report = AutoModelForImageTextToText.from_pretrained(exported, output_loading_info=True)
    assert type(reloaded) is MultimodalLM
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(torch.equal(tensor, reloaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_an_export_reloads_without_the_catalogue(
    exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from search_spaces import catalogue

    monkeypatch.setattr(catalogue, "COMPONENTS", tmp_path)
    catalogue._read.cache_clear()
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    reloaded, processor = load_export(exported)
    assert reloaded.candidate == CANDIDATE
    assert processor.visual_tokens == reloaded.visual_tokens == 4
    assert not list(tmp_path.iterdir())


def test_the_model_card_shows_figures_with_their_labels(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "| label | trained:short |" in card
    assert "| cpu.ttft_ms | 12.25 |" in card
    assert "| reload_max_logit_difference | 0 |" in card


def test_an_export_never_overwrites(exported: Path, model: MultimodalLM) -> None:
    with pytest.raises(StorageError, match="not empty; choose another"):
        export_hf(model, Processor.of(CANDIDATE), exported, card={})


def test_an_exported_model_answers(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    Image.new("RGB", (30, 20), "red").save(file)
    answer = ask(exported, file, "Which colour?", max_new_tokens=4)
    assert answer == ask(exported, file, "Which colour?", max_new_tokens=4)


def test_unreadable_inputs_are_one_line(exported: Path, tmp_path: Path) -> None:
    text = tmp_path / "note.png"
    text.write_text("no image")
    for image in (tmp_path / "absent.png", text):
        with pytest.raises(ConfigError, match="cannot read an image"):
            ask(exported, image, "What?")
    Image.new("RGB", (8, 8)).save(text)
    with pytest.raises(ConfigError, match="question must not be empty"):
        ask(exported, text, " ")
    with pytest.raises(RunError, match="is not an export"):
        ask(tmp_path, text, "What?")


def test_a_foreign_model_folder_is_refused(exported: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        (tmp_path / name).touch()
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(RunError, match=r"but .* has 'llava'"):
        load_export(tmp_path)


def test_finalists_are_ranked_by_trained_accuracy(tmp_path: Path) -> None:
    for key, accuracy in {"aaa": 0.2, "bbb": 0.9}.items():
        folder = tmp_path / "finalists" / key
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "training.json").write_text(json.dumps({"accuracy_open": accuracy}))
    assert checkpoint(tmp_path)[0] == "bbb"
    assert checkpoint(tmp_path, rank=2)[0] == "aaa"
    assert checkpoint(tmp_path, key="aaa")[1] == tmp_path / "finalists" / "aaa"
    with pytest.raises(RunError, match=r"rank must be in 1..2"):
        checkpoint(tmp_path, rank=3)
    with pytest.raises(RunError, match="trained: bbb, aaa"):
        checkpoint(tmp_path, key="ccc")
    with pytest.raises(RunError, match="no trained finalist"):
        checkpoint(tmp_path / "empty")


def test_the_cards_example_runs_and_says_what_nas_ask_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design = Candidate(
        encoder="vit-micro", resolution=64, projector="mlp", compression="none", compression_factor=1,
        lm="llama-micro", lm_depth=1,
    )  # fmt: skip
    export_hf(build(design, weights="random"), Processor.of(design), tmp_path / "export", card={})
    Image.new("RGB", (80, 64), "red").save(tmp_path / "image.png")
    code = (tmp_path / "export" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace("THIS_FOLDER", str(tmp_path / "export")).replace("image.png", str(tmp_path / "image.png"))
    exec(code, {})
    said = capsys.readouterr().out.strip()
    assert said == ask(tmp_path / "export", tmp_path / "image.png", "What shape is in the image?")
