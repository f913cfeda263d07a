"""Neural architecture search for efficient multimodal LLMs: the engine."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces.catalogue import EncoderSpec

__version__ = "0.1.0"


def _outside(name: str) -> EncoderSpec:
    from nas.model.encoder_facts import outside_encoder

    return outside_encoder(name)


with suppress(ModuleNotFoundError):  # a device's worker starts without any package, to say which one is lacking
    from search_spaces.catalogue import OUTSIDE

    OUTSIDE |= {"timm": _outside, "hf": _outside}
