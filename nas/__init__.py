"""Neural architecture search for efficient multimodal LLMs: the engine."""

from search_spaces.catalogue import OUTSIDE, EncoderSpec

__version__ = "0.1.0"


def _outside(name: str) -> EncoderSpec:
    from nas.model.encoder_facts import outside_encoder

    return outside_encoder(name)


OUTSIDE |= {"timm": _outside, "hf": _outside}
