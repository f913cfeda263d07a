"""Training of nested scales: M3 (Cai et al. 2024, arXiv 2405.17430, section 3) averages the loss over all of them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

from nas.model import MultimodalLM, Processor
from nas.model.compress import Matryoshka


@contextmanager
def drawn_scale(model: MultimodalLM, processor: Processor, generator: random.Random) -> Iterator[Processor]:
    """The processor of one step. A matryoshka design runs at one of its scales meanwhile, drawn evenly.

    The mean over steps is the paper's mean over scales. Any other design stays as it is.
    """
    compressor = model.compressor
    if not isinstance(compressor, Matryoshka):
        yield processor
        return
    own, side = compressor.factor, model.encoder_spec.grid_side(model.candidate.resolution)
    drawn = copy.copy(processor)
    compressor.choose(generator.choice(compressor.scales(side)), side)
    drawn.visual_tokens = processor.visual_tokens * own // compressor.factor
    try:
        yield drawn
    finally:
        compressor.choose(own, side)
