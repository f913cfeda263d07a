"""FastV really drops visual tokens inside the decoder: shorter caches, the logits of masking, the closed-form cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_nas_model_build import micro, request
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nas.cost import cost
from nas.model import MultimodalLM, build
from nas.workload import load as workload
from search_spaces import SpaceError
from search_spaces.candidate import Candidate

ONE = workload("vqa-short")


def pruned(**changes: Any) -> Candidate:
    return micro(**{"compression": "fastv", "compression_factor": 4, "prune_layer": 2, "lm_depth": 5, **changes})


def hiding(mask: torch.Tensor) -> Any:
    """A hook that gives a decoder layer another mask (T, T)."""
    return lambda _, args, kwargs: (args, kwargs | {"attention_mask": mask[None, None]})


def prefilled(model: MultimodalLM) -> tuple[Any, torch.Tensor, torch.Tensor]:
    ids, pixels = request(model)
    with torch.inference_mode():
        return model(input_ids=ids, pixel_values=pixels, use_cache=True), ids, pixels


@pytest.mark.parametrize("kv_cache", ["native", "int8"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_later_layers_keep_a_quarter_of_the_visual_tokens(attention: Any, kv_cache: Any) -> None:
    model = build(pruned(attention=attention, kv_cache=kv_cache), weights="random")
    found, ids, _ = prefilled(model)
    lengths = [layer.keys.shape[2] for layer in found.past_key_values.layers]
    assert model.visual_tokens == 16
    assert lengths == [ids.shape[1]] * 2 + [ids.shape[1] - 12] * 3


def test_dropping_gives_the_logits_of_masking() -> None:
    """The reference keeps the sequence whole and hides the same tokens from the later layers."""
    model = build(pruned(), weights="random", seed=1)
    whole = build(micro(lm_depth=5), weights="random", seed=1)
    found, ids, pixels = prefilled(model)
    kept = found.past_key_values.kept[0]
    length = ids.shape[1]
    assert torch.equal(kept[-5:], torch.arange(length - 5, length))
    seen = torch.zeros(length, dtype=torch.bool).index_fill(0, kept, True)
    mask = (seen & torch.ones(length, length, dtype=torch.bool).tril()) | torch.eye(length, dtype=torch.bool)
    for layer in whole.language_model.model.layers[2:]:
        layer.register_forward_pre_hook(hiding(mask), with_kwargs=True)
    with torch.inference_mode():
        expected = whole(input_ids=ids, pixel_values=pixels, use_cache=False).logits
    torch.testing.assert_close(found.logits[0], expected[0, kept], atol=2e-5, rtol=1e-4)


def test_the_tokens_that_stay_are_those_that_the_last_token_attends_to_most() -> None:
    model = build(pruned(attention="eager"), weights="random", seed=2)
    found, ids, pixels = prefilled(model)
    whole = build(micro(lm_depth=5, attention="eager"), weights="random", seed=2)
    with torch.inference_mode():
        received = whole(input_ids=ids, pixel_values=pixels, output_attentions=True).attentions[1][0, :, -1].mean(0)
    visual = (ids[0] == 4).nonzero()[:, 0]
    best = visual[received[visual].topk(4).indices].sort().values
    assert torch.equal(found.past_key_values.kept[0, 1:5], best)


def test_generation_goes_on_with_the_short_cache_and_the_true_positions() -> None:
    """A decode step equals masking: the new token stands at its position in the whole prompt."""
    model = build(pruned(), weights="random", seed=3)
    ids, pixels = request(model)
    found = model.generate(
        input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False,
        eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    assert found.sequences.shape[1] == ids.shape[1] + 4
    lengths = [layer.keys.shape[2] for layer in found.past_key_values.layers]
    assert lengths == [ids.shape[1] + 3] * 2 + [ids.shape[1] + 3 - 12] * 3
    whole = build(micro(lm_depth=5), weights="random", seed=3)
    tokens = found.sequences[:, :-1]
    length = tokens.shape[1]
    seen = torch.zeros(length, dtype=torch.bool).index_fill(0, found.past_key_values.kept[0], True)
    seen[ids.shape[1] :] = True
    mask = (seen & torch.ones(length, length, dtype=torch.bool).tril()) | torch.eye(length, dtype=torch.bool)
    for layer in whole.language_model.model.layers[2:]:
        layer.register_forward_pre_hook(hiding(mask), with_kwargs=True)
    with torch.inference_mode():
        expected = whole(input_ids=tokens, pixel_values=pixels, use_cache=False).logits[:, -4:]
    torch.testing.assert_close(torch.stack(found.logits, 1), expected, atol=2e-5, rtol=1e-4)


def test_a_padded_batch_gives_each_row_what_it_gives_alone() -> None:
    model = build(pruned(), weights="random", seed=4)
    first, pixels = request(model, "What?")
    second, _ = request(model, "Which colour is it?")
    width = second.shape[1]
    ids = torch.cat([torch.cat([torch.zeros(1, width - first.shape[1], dtype=torch.long), first], 1), second])
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = (ids != 0).long()
    both = model.generate(input_ids=ids, pixel_values=pixels.repeat(2, 1, 1, 1), attention_mask=mask, **options)
    for row, alone in enumerate((first, second)):
        single = model.generate(input_ids=alone, pixel_values=pixels, attention_mask=torch.ones_like(alone), **options)
        assert torch.equal(both[row, -3:], single[0, -3:])


def test_the_closed_form_counts_what_runs() -> None:
    candidate = pruned()
    model = build(candidate, weights="random")
    bill = cost(candidate, ONE)
    prompt = bill.visual_tokens + ONE.prompt_tokens
    ids = torch.full((1, prompt), 9)
    ids[:, 1 : 1 + bill.visual_tokens] = 4
    _, pixels = request(model)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        features = model.vision_tokens(pixels)
        with FlopCounterMode(display=False) as counter:
            found = model(input_ids=ids, vision_features=features, use_cache=True, logits_to_keep=1)
    assert counter.get_total_flops() == pytest.approx(bill.prefill_flops + bill.projector_flops, rel=0.01)
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in found.past_key_values.layers)
    width = cached // sum(layer.keys.shape[2] for layer in found.past_key_values.layers)
    assert cached + 5 * ONE.new_tokens * width == bill.kv_bytes


def test_training_sees_every_token() -> None:
    model = build(pruned(), weights="random")
    ids, pixels = request(model)
    assert model(input_ids=ids, pixel_values=pixels, labels=ids).logits.shape[1] == ids.shape[1]


def test_sliding_windows_are_refused_in_one_line() -> None:
    rule = "fastv needs full attention in every decoder layer, but gemma-3-270m has"
    with torch.device("meta"), pytest.raises(SpaceError, match=rule):
        build(pruned(lm="gemma-3-270m"), weights="random")
