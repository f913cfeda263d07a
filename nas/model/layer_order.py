"""In which order the layers of a pretrained decoder are dropped: by block influence, or by what their loss costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel


def influence_order(decoder: PreTrainedModel, ids: Tensor) -> list[int]:
    """Layers from the least influential one on; ids: (B, T) of real text.

    Block influence of layer l is 1 - E[cos(x_l, x_(l+1))] over positions (Men et al., ShortGPT, 2024, arXiv 2403.03853,
    eq. 1). All influences are taken once, on the whole model.
    """
    with torch.inference_mode():
        streams: Sequence[Tensor] = decoder.model(
            input_ids=ids, output_hidden_states=True, use_cache=False
        ).hidden_states
    # transformers normalises the last hidden state: the last layer's own output is not among them.
    last = _last_output(decoder, ids)
    influence = [
        1 - float(F.cosine_similarity(a.double(), b.double(), dim=-1).mean())
        for a, b in pairwise([*streams[:-1], last])
    ]
    return sorted(range(len(influence)), key=lambda layer: influence[layer])


def calibration_order(decoder: PreTrainedModel, ids: Tensor) -> list[int]:
    """Layers in the order in which they go when each time the one goes whose loss the text misses least; ids: (B, T).

    Greedy over the loss of what is left (Song et al., SLEB, 2024, arXiv 2402.09025, algorithm 1; Kim et al., Shortened
    LLaMA, 2024, arXiv 2402.02834, eq. 3, takes all losses at once). L (L + 1) / 2 passes over the text.
    """
    left, gone = list(range(decoder.config.num_hidden_layers)), []
    while len(left) > 1:
        losses = {layer: loss(decoder, ids, [kept for kept in left if kept != layer]) for layer in left}
        worst = min(losses, key=losses.__getitem__)
        left.remove(worst)
        gone.append(worst)
    return gone + left


def loss(decoder: PreTrainedModel, ids: Tensor, kept: Sequence[int]) -> float:
    """Mean cross entropy in nats of the next token, with only the layers `kept`; the decoder is left as found."""
    layers, depth = decoder.model.layers, decoder.config.num_hidden_layers
    decoder.model.layers, decoder.config.num_hidden_layers = nn.ModuleList(layers[i] for i in kept), len(kept)
    try:
        with torch.inference_mode():
            return float(decoder(input_ids=ids, labels=ids, use_cache=False).loss)
    finally:
        decoder.model.layers, decoder.config.num_hidden_layers = layers, depth


def _last_output(decoder: PreTrainedModel, ids: Tensor) -> Tensor:
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    handle = decoder.model.layers[-1].register_forward_hook(keep)
    try:
        with torch.inference_mode():
            decoder.model(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    return seen[0]
