"""Which layers of a pretrained decoder go first: block influence and calibration loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from nas.depth import kept_layers
from nas.model.layer_order import calibration_order, influence_order, loss
from search_spaces import catalogue

SMOLLM2 = catalogue.language_model("smollm2-135m")


@pytest.fixture(scope="module")
def decoder() -> LlamaForCausalLM:
    """Four small layers, of which the third writes almost nothing into the residual stream."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(shape).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.3)
        for written in (model.model.layers[2].self_attn.o_proj, model.model.layers[2].mlp.down_proj):
            written.weight.mul_(1e-3)
    return model


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(32, (3, 12), generator=torch.Generator().manual_seed(1))


def test_a_layer_that_changes_nothing_goes_first_by_both_rules(decoder: LlamaForCausalLM, ids: Tensor) -> None:
    assert influence_order(decoder, ids)[0] == 2
    assert sorted(influence_order(decoder, ids)) == sorted(calibration_order(decoder, ids)) == [0, 1, 2, 3]


def test_influence_equals_the_formula_on_streams_taken_by_hand(decoder: LlamaForCausalLM, ids: Tensor) -> None:
    with torch.inference_mode():
        stream = decoder.model.embed_tokens(ids)
        places = torch.arange(ids.shape[1])[None]
        angles = decoder.model.rotary_emb(stream, places)
        mask = torch.full((1, 1, ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
        influences = []
        for layer in decoder.model.layers:
            after = layer(stream, position_embeddings=angles, attention_mask=mask)
            influences.append(float((1 - F.cosine_similarity(stream, after, dim=-1)).mean()))
            stream = after
    assert influence_order(decoder, ids) == sorted(range(4), key=influences.__getitem__)


def test_calibration_drops_the_layer_whose_absence_costs_least_and_leaves_the_model_as_found(
    decoder: LlamaForCausalLM, ids: Tensor
) -> None:
    before = decoder(input_ids=ids).logits
    order = calibration_order(decoder, ids)
    torch.testing.assert_close(decoder(input_ids=ids).logits, before, rtol=0, atol=0)
    without = {layer: loss(decoder, ids, [kept for kept in range(4) if kept != layer]) for layer in range(4)}
    assert order[0] == min(without, key=without.__getitem__)


def test_loss_of_fewer_layers_is_that_of_a_model_built_without_them(decoder: LlamaForCausalLM, ids: Tensor) -> None:
    shallow = LlamaForCausalLM(LlamaConfig(**{**decoder.config.to_dict(), "num_hidden_layers": 2})).eval()
    state = {}
    for name, weight in decoder.state_dict().items():
        parts = name.split(".")
        if parts[:2] == ["model", "layers"]:
            if parts[2] not in {"1", "3"}:
                continue
            parts[2] = {"1": "0", "3": "1"}[parts[2]]
        state[".".join(parts)] = weight
    shallow.load_state_dict(state)
    assert loss(decoder, ids, [1, 3]) == pytest.approx(shallow(input_ids=ids, labels=ids).loss.item(), rel=1e-5)


@pytest.mark.parametrize("rule", ["influence", "calibration"])
def test_orders_of_the_catalogue_hold_every_layer_once_and_deeper_cuts_are_nested(rule: str) -> None:
    order = SMOLLM2.layer_orders[rule]
    assert sorted(order) == list(range(SMOLLM2.layers))
    for depth in range(2, SMOLLM2.layers + 1):
        kept = kept_layers(rule, SMOLLM2, depth)
        assert kept == sorted(kept)
        assert len(kept) == depth
        assert set(kept_layers(rule, SMOLLM2, depth - 1)) < set(kept)
