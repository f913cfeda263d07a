"""Token compression shortens the sequence that the decoder computes and caches: nothing is masked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import search_spaces
from nas.model import build
from search_spaces import Candidate, catalogue

QUERIES = ("c-abstractor", "d-abstractor", "q-former", "perceiver", "token-packer")
POOLING = ("ldp", "ldp-v2", "deco")
TEXT = 5
METHODS = [
    *(("mlp", name, 4) for name in catalogue.compressors() if name not in ("none", "queries", "tome-blocks")),
    ("mlp", "tome-blocks", 2), *((name, "queries", 4) for name in QUERIES), *((name, "avgpool", 4) for name in POOLING),
]  # fmt: skip


@pytest.mark.parametrize(("projector", "method", "factor"), METHODS, ids=str)
def test_every_compression_leaves_a_shorter_sequence_in_every_layer_and_in_the_cache(
    projector: str, method: str, factor: int
) -> None:
    changes: dict[str, Any] = {"projector": projector, "compression": method, "compression_factor": factor}
    if method == "fastv":
        changes["prune_layer"] = 1
    baseline = search_spaces.load("micro").baseline
    model = build(Candidate.model_validate({**baseline, "resolution": 64, "lm_depth": 3, **changes}), weights="random")
    computed: list[int] = []
    for layer in model.decoder.layers:
        layer.self_attn.q_proj.register_forward_hook(
            lambda _module, inputs, _output: computed.append(inputs[0].shape[1])
        )
    ids = torch.tensor([[model.language_spec.image_token_id] * model.visual_tokens + [7] * TEXT])
    with torch.inference_mode():
        cache = model(input_ids=ids, pixel_values=torch.randn(1, 3, 64, 64), use_cache=True).past_key_values
    whole, short = 16 + TEXT, 16 // factor + TEXT
    assert computed == [whole if method == "fastv" else short, short, short]
    assert [layer.keys.shape[2] for layer in cache.layers] == computed
