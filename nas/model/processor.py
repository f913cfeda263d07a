"""Processor: images (or sound) and questions into tensors, in the one form that training and asking share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas.cost_vision import placeholders
from nas.errors import ConfigError
from nas.model import pretrained
from nas.model.sound import FRAME, cut_windows, log_mel, read_clip, sound_settings
from nas.model.tiles import cut, tile_grid
from search_spaces.candidate import Candidate
from search_spaces.catalogue import EncoderSpec, encoder, language_model

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

PREPROCESSOR_FILE = "preprocessor_config.json"


class Processor:
    """Pixels of a square, normalised image; ids of `<im_start> image tokens question <im_end> answer <im_end>`."""

    def __init__(
        self, resolution: int, mean: list[float], std: list[float], image_token_id: int, visual_tokens: int,
        tokenizer: PreTrainedTokenizerBase, tiling: str = "none", tiles: int = 1, mels: int = 0,
    ) -> None:  # fmt: skip
        self.resolution, self.tiling, self.tiles, self.mels = resolution, tiling, tiles, mels
        self.mean, self.std = mean, std
        self.image_token_id, self.visual_tokens = image_token_id, visual_tokens
        self.tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}  # questions and answers repeat; a tokenizer's call costs 0.1 ms
        self.start_id = _special(tokenizer, "<|im_start|>", tokenizer.bos_token_id)
        self.end_id = _special(tokenizer, "<|im_end|>", tokenizer.eos_token_id)

    @classmethod
    def of(cls, candidate: Candidate) -> Processor:
        """The processor of a candidate of the catalogue."""
        spec, language = encoder(candidate.encoder), language_model(candidate.lm)
        tokens = placeholders(candidate, spec)
        tokenizer = pretrained.tokenizer(language.tokenizer)
        return cls(
            candidate.resolution, list(spec.mean), list(spec.std), language.image_token_id, tokens, tokenizer,
            candidate.tiling, candidate.tiles, spec.mels,
        )  # fmt: skip

    def read(self, path: Path) -> Any:
        """What `pixels` takes, of a picture's file, or of a WAV file where this model hears. Raises: ConfigError."""
        if self.mels:
            return read_clip(path)
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as opened:
                return opened.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise ConfigError(f"cannot read an image from {path}: {error}; give a PNG or JPEG file") from error

    def pixels(self, images: list[Any], *, fit: bool = False) -> Tensor:
        """PIL images of any size -> (B, 3, R, R), or (B, V, 3, R, R) where images are tiled; bicubic, normalised.

        Every image gets all tiles; with `fit` fewer where it is small, and where V differs they lie flat: (n, 3, R, R).
        Of sound: clips (samples,) -> log-mel spectrograms (n, mels, R) of their windows, one after the other; without
        `fit` of the first window of each.
        """
        if self.mels:
            size = self.resolution * FRAME
            return log_mel(images if fit else [clip[:size] for clip in images], self.resolution, self.mels)
        return tiled_pixels(images, self.resolution, self.mean, self.std, self.tiling, self.tiles, fit=fit)

    def fitted_tokens(self, image: Any) -> int:
        """Visual tokens of one image where it gets only the tiles that it can fill; of all windows of a clip."""
        if self.mels:
            return self.visual_tokens * len(cut_windows(image, self.resolution))
        if self.tiling != "any-resolution":
            return self.visual_tokens
        rows, columns = tile_grid(image.size, self.tiling, self.tiles, self.resolution, fit=True)
        return self.visual_tokens * (rows * columns + 1) // (self.tiles + 1)

    def prompt(self, question: str, visual_tokens: int | None = None) -> list[int]:
        """Token ids up to where the answer starts, of an image with all tiles if not told otherwise."""
        places = [self.image_token_id] * (self.visual_tokens if visual_tokens is None else visual_tokens)
        return [self.start_id, *places, *self._ids(question), self.end_id]

    def answer(self, answer: str) -> list[int]:
        """Token ids of an answer with its end mark."""
        return [*self._ids(answer), self.end_id]

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self.tokenizer(" " + text.strip(), add_special_tokens=False)["input_ids"]
        return self._known[text]

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    @property
    def chat_template(self) -> str:
        """Jinja: a user's turn is `start, image tokens, question, end`, an answer ends with the end mark."""
        marks = (self.start_id, self.image_token_id, self.end_id)
        start, image, end = (str(self.tokenizer.convert_ids_to_tokens(mark)) for mark in marks)
        return (
            f"{{%- for message in messages %}}{{%- if loop.first %}}{{{{ '{start}' }}}}{{%- endif %}}"
            "{%- set parts = message.content if message.content is not string else "
            "[{'type': 'text', 'text': message.content}] %}{%- for part in parts %}"
            f"{{%- if part.type == 'image' %}}{{{{ '{image}' * {self.visual_tokens} }}}}"
            "{%- else %}{{ ' ' + part.text | trim }}{%- endif %}{%- endfor %}"
            f"{{{{ '{end}' }}}}{{%- endfor %}}"
        )

    def save(self, folder: Path) -> None:
        """Tokenizer files with chat template, and a preprocessor_config.json as transformers' image processors have."""
        self.tokenizer.chat_template = self.chat_template
        self.tokenizer.save_pretrained(folder)
        settings = sound_settings(self.resolution, self.mels) if self.mels else self._picture_settings()
        (folder / PREPROCESSOR_FILE).write_text(json.dumps(settings, indent=2), encoding="utf-8")

    def _picture_settings(self) -> dict[str, Any]:
        return {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True, "size": {"height": self.resolution, "width": self.resolution}, "resample": 3,
            "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": True, "image_mean": self.mean, "image_std": self.std, "do_convert_rgb": True,
        }  # fmt: skip

    @classmethod
    def load(cls, folder: Path, candidate: Candidate, spec: EncoderSpec, image_token_id: int) -> Processor:
        """The processor of an export."""
        from transformers import PreTrainedTokenizerFast

        tokens = placeholders(candidate, spec)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        return cls(
            candidate.resolution, list(spec.mean), list(spec.std), image_token_id, tokens, tokenizer,
            candidate.tiling, candidate.tiles, spec.mels,
        )  # fmt: skip


def _special(tokenizer: PreTrainedTokenizerBase, text: str, otherwise: int | None) -> int:
    """The id of a chat mark, or of the nearest thing that a tokenizer without chat marks has."""
    found = tokenizer.get_vocab().get(text, otherwise)
    return int(tokenizer.eos_token_id if found is None else found)


def preprocess(images: list[Image], resolution: int, mean: list[float], std: list[float]) -> Tensor:
    """PIL images -> (B, 3, R, R) float32."""
    from PIL import Image as Pillow

    arrays = [
        np.asarray(image.convert("RGB").resize((resolution, resolution), Pillow.Resampling.BICUBIC)) for image in images
    ]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div_(255)
    return pixels.sub_(torch.tensor(mean).view(1, 3, 1, 1)).div_(torch.tensor(std).view(1, 3, 1, 1))


def tiled_pixels(
    images: list[Image], resolution: int, mean: list[float], std: list[float], tiling: str, tiles: int, *,
    fit: bool = False,
) -> Tensor:  # fmt: skip
    """As `Processor.pixels`."""
    if tiling == "none":
        return preprocess(images, resolution, mean, std)
    views = [cut(image, tiling, tiles, resolution, fit=fit) for image in images]
    pixels = preprocess([view for several in views for view in several], resolution, mean, std)
    return pixels.unflatten(0, (len(views), -1)) if len({len(several) for several in views}) == 1 else pixels  # type: ignore[no-untyped-call]
