"""Processor: images and questions into tensors, in the one form that training, measuring and asking share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas.model import pretrained
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
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:  # fmt: skip
        self.resolution = resolution
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
        tokens = spec.tokens(candidate.resolution, candidate.entering_factor)
        tokenizer = pretrained.tokenizer(language.tokenizer)
        return cls(candidate.resolution, list(spec.mean), list(spec.std), language.image_token_id, tokens, tokenizer)

    def pixels(self, images: list[Image]) -> Tensor:
        """PIL images of any size -> (B, 3, R, R), bicubic, scaled to 0..1 and normalised."""
        return preprocess(images, self.resolution, self.mean, self.std)

    def prompt(self, question: str) -> list[int]:
        """Token ids up to where the answer starts."""
        return [self.start_id, *[self.image_token_id] * self.visual_tokens, *self._ids(question), self.end_id]

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
        settings: dict[str, Any] = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True, "size": {"height": self.resolution, "width": self.resolution}, "resample": 3,
            "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": True, "image_mean": self.mean, "image_std": self.std, "do_convert_rgb": True,
        }  # fmt: skip
        (folder / PREPROCESSOR_FILE).write_text(json.dumps(settings, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, candidate: Candidate, spec: EncoderSpec, image_token_id: int) -> Processor:
        """The processor of an export."""
        from transformers import PreTrainedTokenizerFast

        tokens = spec.tokens(candidate.resolution, candidate.entering_factor)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        return cls(candidate.resolution, list(spec.mean), list(spec.std), image_token_id, tokens, tokenizer)


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
