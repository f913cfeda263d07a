"""build(candidate) -> MultimodalLM: the only way a candidate becomes a network."""

from nas.model.build import build
from nas.model.multimodal import MultimodalConfig, MultimodalLM
from nas.model.processor import Processor

__all__ = ["MultimodalConfig", "MultimodalLM", "Processor", "build"]
