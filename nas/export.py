"""Hands a model over as a Hugging Face folder, and proves that the folder gives the same logits back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from nas.errors import NasError, RunError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

    from nas.model import MultimodalLM, Processor

PROBE_QUESTION = "What is in the image?"
ASKED, HEARD = "What shape is in the image?", "What is heard?"  # of the card's example
IN_TRANSFORMERS = """import nas.model  # registers the architecture
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

folder = "THIS_FOLDER"
model = AutoModelForImageTextToText.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
pixels = AutoImageProcessor.from_pretrained(folder)(Image.open("image.png"), return_tensors="pt")["pixel_values"]
asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": THIS_QUESTION}]}]
ids = tokenizer.apply_chat_template(asked, return_tensors="pt", return_dict=True)["input_ids"]
said = model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=16, do_sample=False)
print(tokenizer.decode(said[0, ids.shape[1]:], skip_special_tokens=True))"""
RECIPE_FILE = "recipe.yaml"
TWO_STAGES = """# How `nas train EXPORT --data FOLDER` trains this model: two stages of Liu et al. 2023, section 3.
# FOLDER holds images and *.json in the LLaVA form: [{id, image, conversations: [{from: human|gpt, value}]}];
# for a model that hears, WAV files of 16 bits and `sound` in place of `image`.
stages:
  - {name: alignment, trains: [projector], steps: 100, batch: 8, rate: 1.0e-3, warmup: 0.03}
  - {name: instruction, trains: [projector, language_model], steps: 200, batch: 8, rate: 2.0e-5, warmup: 0.03}
"""
NEEDED = ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json")


def export_hf(
    model: MultimodalLM, processor: Processor, to: Path, *, card: Mapping[str, Any], asked: str | None = None
) -> float:
    """Writes config, weights, tokenizer, preprocessor and model card; returns the largest logit difference, 0.0.

    The folder appears at once or not at all: it is written beside, reloaded, compared on a fixed probe, then renamed.
    `card` maps a heading (how found, measured, trained ...) to its figures, which become tables of the model card;
    `asked` is the question of its example.

    Raises: StorageError where `to` holds files or cannot be written, NasError where the reloaded logits differ.
    """
    with new_folder(to) as partial:
        with quiet():
            model.save_pretrained(partial)
        processor.save(partial)
        difference = _reload_difference(model, processor, partial)
        (partial / "README.md").write_text(_card(model, card, difference, asked), encoding="utf-8")
        (partial / RECIPE_FILE).write_text(TWO_STAGES, encoding="utf-8")
    return difference


def check_new(to: Path) -> None:
    """Before the work whose result goes there. Raises: StorageError where there are files already."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise StorageError(f"an export goes into a new or empty folder, but {to} is not empty; choose another")


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """A folder beside `to` that becomes it when the block ends well. Raises: StorageError."""
    check_new(to)
    partial = to.with_name(f".{to.name}.partial")
    try:
        rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if to.exists():
            to.rmdir()
        partial.rename(to)
    except OSError as error:
        raise StorageError(f"cannot write the export to {to}: {error}; choose another folder") from error
    finally:
        rmtree(partial, ignore_errors=True)


def load_export(folder: Path) -> tuple[MultimodalLM, Processor]:
    """The model of an export, in evaluation mode, and its processor; neither catalogue nor network is asked.

    Raises: RunError where the folder is not an export of this program.
    """
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise RunError(
            f"{folder} is not an export: {', '.join(missing)} missing; write one with `nas export RUN --to DIR`"
        )
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise RunError(f"{folder}/config.json does not hold a model's config; write the export again") from error
    from nas.model import MultimodalConfig, MultimodalLM, Processor

    if kind != MultimodalConfig.model_type:
        raise RunError(f"model_type must be {MultimodalConfig.model_type!r}, but {folder}/config.json has {kind!r}")
    from safetensors import SafetensorError

    try:
        with quiet():  # weights from safetensors only: other files beside them are pickles
            model = MultimodalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"{folder} cannot be loaded: {reason}; write the export again") from error
    model.train(False)
    image_token = model.language_spec.image_token_id
    return model, Processor.load(folder, model.candidate, model.encoder_spec, image_token)


def checkpoint(run: Path, *, rank: int = 1, key: str | None = None) -> tuple[str, Path]:
    """Key and folder of a trained finalist of a run: by key, or by rank of trained accuracy on open questions.

    Raises: RunError naming the finalists there are.
    """
    trained = sorted(_finalists(run).items(), key=lambda entry: (-entry[1][1], entry[0]))
    if not trained:
        raise RunError(f"{run} has no trained finalist to export; run `nas resume {run}` with --finalists 1 or more")
    keys = [name for name, _ in trained]
    if key is not None:
        if key not in keys:
            raise RunError(f"no trained finalist {key!r} in {run}; trained: {', '.join(keys)}")
        return key, dict(trained)[key][0]
    if not 1 <= rank <= len(keys):
        raise RunError(f"rank must be in 1..{len(keys)} (the trained finalists of {run}), but got {rank}")
    name, (folder, _) = trained[rank - 1]
    return name, folder


def _finalists(run: Path) -> dict[str, tuple[Path, float]]:
    """Key -> (checkpoint folder, trained accuracy on open questions), of finalists whose training ended."""
    keys = [file.parent.name for file in sorted(run.glob("finalists/*/training.json"))]
    return {key: (run / "finalists" / key, float(training_record(run, key)["accuracy_open"])) for key in keys}


def training_record(run: Path, key: str) -> dict[str, Any]:
    """What `finalists/<key>/training.json` of a run says, or nothing."""
    file = run / "finalists" / key / "training.json"
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return record


def _reload_difference(model: MultimodalLM, processor: Processor, folder: Path) -> float:
    """Largest absolute logit difference between the model and its reloaded self on one fixed image and question."""
    mode = model.training
    model.train(False)
    reloaded, again = load_export(folder)
    reloaded.to(model.device)  # type: ignore[arg-type]
    here, there = _probe(model, processor), _probe(reloaded, again)
    model.train(mode)
    difference = float((here - there).abs().max()) if here.shape == there.shape else float("nan")
    if difference != 0:
        raise NasError(
            f"the export must reload with logit difference 0, but it is {difference}; this is a bug, please report it"
        )
    return difference


def probe_inputs(processor: Processor) -> tuple[Tensor, Tensor]:
    """Ids (1, T) and pixels of one fixed image (or clip of sound) and question."""
    import numpy as np
    import torch
    from PIL import Image

    if processor.mels:
        from nas.model.sound import noise as clip

        return torch.tensor([processor.prompt(PROBE_QUESTION)]), processor.pixels([clip(1.0)])
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return torch.tensor([processor.prompt(PROBE_QUESTION)]), processor.pixels([Image.fromarray(noise)])


def _probe(model: MultimodalLM, processor: Processor) -> Tensor:
    """Logits (1, T, vocab) for one fixed image and question."""
    import torch

    ids, pixels = probe_inputs(processor)
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids.to(model.device), pixel_values=pixels.to(model.device, model.dtype)).logits
    return logits.float()


def _card(model: MultimodalLM, card: Mapping[str, Any], difference: float, asked: str | None) -> str:
    """The model card: what it is, what is known of it with labels, how to ask it."""
    design = model.candidate.to_dict() | {
        "visual_tokens": model.visual_tokens,
        "params": model.num_parameters(),
        "reload_max_logit_difference": difference,
    }
    sources = {"encoder": model.encoder_spec.source, "language_model": model.language_spec.source}
    sections = {"Design": design, "Parts": sources, **card}
    of_sound, of_pictures = ("audio", "clip.wav", HEARD), ("image", "image.png", ASKED)
    sense, file, usual = of_sound if model.encoder_spec.mels else of_pictures
    question = usual if asked is None else asked
    tables = "\n\n".join(f"## {heading}\n\n{_table(figures)}" for heading, figures in sections.items())
    plain = not model.encoder_spec.mels and model.candidate.tiling == "none" and model.candidate.temporal_factor == 1
    by_nas = (
        "from pathlib import Path\n\nfrom nas.ask import ask\n\n"
        f'print(ask(Path("THIS_FOLDER"), Path("{file}"), {json.dumps(question)}))'
    )
    example = IN_TRANSFORMERS.replace("THIS_QUESTION", json.dumps(question)) if plain else by_nas
    return f"""---
library_name: transformers
pipeline_tag: {sense}-text-to-text
tags: [neural-architecture-search, multimodal, nas]
---

# {model.candidate}

A small {sense}-language model found by `nas`, neural architecture search for efficient multimodal LLMs.

{tables}

## Use

```python
{example}
```

or from the shell: `nas ask THIS_FOLDER {file} {quote(question)}`
"""


def _table(figures: object) -> str:
    """A Markdown table of nested figures, one row a leaf; anything that is no mapping is text."""
    if not isinstance(figures, Mapping):
        return str(figures)
    rows = [f"| {name} | {value} |" for name, value in _leaves(figures)]
    return "\n".join(["| | |", "|---|---|", *rows])


def _leaves(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif not (isinstance(value, list) and len(value) > 8):  # a loss curve is no table row
            yield prefix + name, f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bars, which would tear a live display."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
