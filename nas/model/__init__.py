"""build(candidate) -> MultimodalLM: the only way a candidate becomes a network."""

from transformers.utils.logging import disable_progress_bar

from nas.model.build import Sources, build
from nas.model.multimodal import MultimodalConfig, MultimodalLM
from nas.model.processor import Processor

__all__ = ["MultimodalConfig", "MultimodalLM", "Processor", "Sources", "build"]

disable_progress_bar()  # type: ignore[no-untyped-call]  # loading weights would draw into the search's own progress
