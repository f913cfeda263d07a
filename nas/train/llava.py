"""The two-stage recipe of an export (projector alignment, instruction tuning) on data in the LLaVA JSON form.

Liu et al. 2023 (arXiv 2310.03744), section 3: the loss is on answers only; the first stage trains the projector alone.
Rates and steps are those of `recipe.yaml` beside the model.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nas.errors import ConfigError
from nas.model import MultimodalLM, Processor
from nas.model.sound import cut_windows
from nas.train.loop import rate_share
from nas.train.nested import drawn_scale
from search_spaces.reading import check, read_mapping

IGNORED = -100  # label of positions that carry no loss
Progress = Callable[[str, int, int, float], None]  # stage, step, of, loss


class Stage(BaseModel):
    """One stage of the recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    trains: list[Literal["vision", "projector", "language_model"]] = Field(min_length=1)
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rate: float = Field(gt=0)
    warmup: float = Field(default=0.03, ge=0, le=1)


class Stages(BaseModel):
    """recipe.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: list[Stage] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One image (or clip of sound) and what is asked and answered about it, in turn."""

    file: Path
    turns: tuple[tuple[str, str], ...]
    hears: bool = False


def read_stages(file: Path) -> Stages:
    """Raises: ConfigError."""
    return check(read_mapping(file, ConfigError), Stages, str(file), ConfigError)


def read_conversations(folder: Path) -> list[Conversation]:
    """Every entry of the folder's JSON files; images and clips lie beside them. Raises: ConfigError naming the file."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ConfigError(f"{folder} must hold a JSON file in the LLaVA form, but holds none")
    found = []
    for file in files:
        try:
            entries = json.loads(file.read_text(encoding="utf-8"))
            found += [_conversation(entry, folder) for entry in entries]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{file} must be a list of {{image, conversations: [{{from: human|gpt, value}}]}}, but: {error!r}"
            ) from None
    return found


def _conversation(entry: dict[str, Any], folder: Path) -> Conversation:
    hears = "sound" in entry
    seen = folder / entry["sound" if hears else "image"]
    if not seen.is_file():
        raise ValueError(f"no file {seen}")
    said = entry["conversations"]
    if (
        len(said) < 2
        or len(said) % 2
        or any(turn["from"] != ("human", "gpt")[place % 2] for place, turn in enumerate(said))
    ):
        raise ValueError(f"human and gpt must take turns in {entry.get('id', seen.name)}")
    texts = [turn["value"].replace("<image>", "").replace("<sound>", "").strip() for turn in said]
    return Conversation(seen, tuple(zip(texts[::2], texts[1::2], strict=True)), hears)


def encode(processor: Processor, conversation: Conversation, windows: int = 1) -> tuple[list[int], list[int]]:
    """(ids, labels): start, image, then question end answer end for each turn; only answers carry loss."""
    visual_tokens = windows * processor.visual_tokens
    ids: list[int] = []
    labels: list[int] = []
    for place, (question, answer) in enumerate(conversation.turns):
        asked = processor.prompt(question, visual_tokens)
        asked = asked if place == 0 else asked[1 + visual_tokens :]
        said = processor.answer(answer)
        ids += asked + said
        labels += [IGNORED] * len(asked) + said
    return ids, labels


def train_stages(
    model: MultimodalLM,
    processor: Processor,
    data: Sequence[Conversation],
    stages: Stages,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Trains in place, stage after stage; what is known of each stage. Raises: ConfigError for narrow weights."""
    if model.candidate.lm_weights != "native":
        raise ConfigError(f"lm_weights must be 'native' to be trained, but got {model.candidate.lm_weights!r}")
    if other := [one for one in data if one.hears != (processor.mels > 0)]:
        takes = "sound" if processor.mels else "image"
        raise ConfigError(f"this model takes {takes!r} in every conversation, but {other[0].file.name} is none")
    torch.manual_seed(seed)
    records: dict[str, Any] = {}
    for stage in stages.stages:
        start = time.monotonic()
        losses = _train_stage(model, processor, data, stage, random.Random(seed), progress)
        tail = losses[-max(1, len(losses) // 5) :]
        records[stage.name] = {
            **stage.model_dump(), "first_loss": losses[0], "last_loss": sum(tail) / len(tail), "examples": len(data),
            "seconds": round(time.monotonic() - start, 1),
        }  # fmt: skip
    model.train(False)
    return records


def _train_stage(
    model: MultimodalLM, processor: Processor, data: Sequence[Conversation], stage: Stage, generator: random.Random,
    progress: Progress,
) -> list[float]:  # fmt: skip
    model.train()
    model.requires_grad_(False)
    model.vision.train("vision" in stage.trains)
    for part in stage.trains:
        getattr(model, part).requires_grad_(True)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=stage.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, stage.steps, stage.warmup))
    losses = []
    batches = _batches(len(data), stage.batch, generator)
    for step in range(1, stage.steps + 1):
        with drawn_scale(model, processor, generator) as drawn:
            loss = _loss(model, drawn, [data[index] for index in next(batches)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        progress(stage.name, step, stage.steps, losses[-1])
    return losses


def _batches(count: int, size: int, generator: random.Random) -> Iterator[list[int]]:
    """Endless; every example once before any comes again."""
    queue: list[int] = []
    while True:
        while len(queue) < size:
            fresh = list(range(count))
            generator.shuffle(fresh)
            queue += fresh
        yield [queue.pop(0) for _ in range(size)]


def _loss(model: MultimodalLM, processor: Processor, batch: Sequence[Conversation]) -> Tensor:
    """Mean cross-entropy of the answers' tokens; shorter conversations are padded at their end.

    Pictures have all their tiles, clips as many windows as they last. With cross-attention, which shows every text of a
    call as many, clips of equally many windows go together.
    """
    read = [processor.read(conversation.file) for conversation in batch]
    windows = [len(cut_windows(clip, processor.resolution)) if processor.mels else 1 for clip in read]
    coded = [
        (clip, *encode(processor, conversation, count))
        for clip, conversation, count in zip(read, batch, windows, strict=True)
    ]
    groups: dict[int, list[tuple[Any, list[int], list[int]]]] = {}
    for count, row in zip(windows, coded, strict=True):
        groups.setdefault(count if model.candidate.crosses else 1, []).append(row)
    answered = [sum(label != IGNORED for _, _, labels in group for label in labels) for group in groups.values()]
    losses = [_group_loss(model, processor, group) for group in groups.values()]
    return sum((loss * count for loss, count in zip(losses, answered, strict=True)), torch.zeros(())) / sum(answered)


def _group_loss(model: MultimodalLM, processor: Processor, rows: Sequence[tuple[Any, list[int], list[int]]]) -> Tensor:
    """Of (picture or clip, ids, labels), in one call."""
    longest = max(len(ids) for _, ids, _ in rows)
    ids = torch.tensor([row + [processor.end_id] * (longest - len(row)) for _, row, _ in rows])
    labels = torch.tensor([row + [IGNORED] * (longest - len(row)) for _, _, row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for _, row, _ in rows])
    pixels = processor.pixels([seen for seen, _, _ in rows], fit=processor.mels > 0)
    loss: Tensor = model(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=pixels, use_cache=False).loss
    return loss
