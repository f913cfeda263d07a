"""Projectors and compressions: any combination fits, costs what is counted, and computes what its paper says."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nas.cost_connector import Sizes, attending, connector_bill
from nas.cost_vision import placeholders
from nas.model.abstract import CAbstractor, DAbstractor, DeformableAttention
from nas.model.compress import AdaptivePooling, FrameMerging, Matryoshka, build_compressor
from nas.model.grid import nearly_square
from nas.model.multimodal import MultimodalConfig, MultimodalLM
from nas.model.project import PROJECTORS, Ldp, build_connector, build_projector
from nas.model.prune import LastAttention, importance, prumerge, visionzip
from nas.model.resample import Perceiver, QFormer, TokenPacker
from nas.model.vision import VisionEncoder
from search_spaces import Candidate, catalogue
from search_spaces.rules import buildable

QUERIES = ("c-abstractor", "d-abstractor", "q-former", "perceiver", "token-packer")
GENERATOR = torch.Generator().manual_seed(0)


def tokens(side: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, side * side, width, generator=GENERATOR)


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def method_for(projector: str) -> str:
    if projector in QUERIES:
        return "queries"
    return "pixel-shuffle" if projector == "pixel-shuffle" else "avgpool"


def test_the_catalogue_and_the_built_parts_are_the_same() -> None:
    assert set(PROJECTORS) == set(catalogue.projectors())
    for name in catalogue.compressors():
        build_compressor(name, 4, 8)


@pytest.mark.parametrize("sizes", [(64, 64, 6, 4), (96, 128, 6, 9), (384, 576, 8, 4)], ids=str)
@pytest.mark.parametrize("projector", sorted(PROJECTORS))
def test_a_connector_has_the_tokens_parameters_and_flops_that_are_counted(
    projector: str, sizes: tuple[int, int, int, int]
) -> None:
    width, hidden, side, factor = sizes
    method = method_for(projector)
    with torch.device("meta"):
        connector = nn.Sequential(*build_connector(projector, method, factor, width, hidden, (side, side))).eval()
        x = torch.empty(1, side * side, width)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        assert connector(x).shape == (1, side * side // factor, hidden)
    bill = connector_bill(projector, method, factor, Sizes(side**2, side**2 // factor, width, hidden))
    assert bill.params == count(connector)
    assert bill.flops == counter.get_total_flops()


@pytest.mark.parametrize("method", ["maxpool", "adaptive", "tome", "matryoshka", "visionzip", "prumerge"])
@pytest.mark.parametrize("encoder", ["vit-micro", "eva02-vitt14"])
def test_every_compression_hands_on_fewer_tokens_and_costs_what_is_counted(method: str, encoder: str) -> None:
    spec = catalogue.encoder(encoder)
    resolution, factor = 6 * spec.stride, 4
    with torch.device("meta"):
        whole = VisionEncoder(spec, resolution, 1).eval()
        vision = VisionEncoder(spec, resolution, 1, method, factor).eval()
        connector = nn.Sequential(*build_connector("linear", method, factor, spec.width, 8, (6, 6))).eval()
        images = torch.zeros(1, 3, resolution, resolution)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as encoding:
            whole(images)
        with FlopCounterMode(display=False) as counter:
            assert connector(vision(images)).shape == (1, 36 // factor, 8)
    bill = connector_bill("linear", method, factor, Sizes(36, 36 // factor, spec.width, 8), attending(spec))
    assert counter.get_total_flops() - encoding.get_total_flops() == pytest.approx(bill.flops, rel=0.01)


def draw(generator: random.Random, projector: str) -> Candidate | None:
    """Any combination of the axes that this file is about; None where a rule forbids it."""
    encoder = generator.choice(["vit-micro", "conv-micro"])
    factor = generator.choice([1, 2, 3, 4, 6, 9, 12, 18, 36])
    methods = [name for name in catalogue.compressors() if name not in ("none", "fastv")]
    candidate = Candidate(
        encoder=encoder, resolution=generator.choice([64, 96]), projector=projector,
        compression="none" if factor == 1 else generator.choice([method_for(projector), *methods]),
        compression_factor=factor, lm="llama-micro", lm_depth=1,
        encoder_depth=generator.choice([0, 1]) if encoder == "vit-micro" else 0,
    )  # fmt: skip
    return None if buildable(candidate) else candidate


@pytest.mark.parametrize("projector", sorted(PROJECTORS))
def test_any_allowed_combination_runs_and_makes_the_tokens_that_are_counted(projector: str) -> None:
    generator, seen = random.Random(3), set()
    while len(seen) < 4:
        candidate = draw(generator, projector)
        if candidate is None or candidate in seen:
            continue
        seen.add(candidate)
        config = MultimodalConfig(
            candidate=candidate.to_dict(), encoder=catalogue.encoder(candidate.encoder).model_dump(mode="json"),
            language_model=catalogue.language_model(candidate.lm).model_dump(mode="json"),
        )  # fmt: skip
        with torch.device("meta"), torch.inference_mode():
            model = MultimodalLM(config).eval()
            pixels = torch.zeros(2, 3, candidate.resolution, candidate.resolution)
            visual = model.encode_images(pixels)
            ids = torch.zeros(2, placeholders(candidate, model.encoder_spec) + 3, dtype=torch.long)
            logits = model(input_ids=ids, pixel_values=pixels).logits
        assert visual.shape == (2, model.visual_tokens, 64), candidate
        assert logits.shape == (*ids.shape, model.language_spec.vocab)


def test_max_pooling_is_the_largest_of_each_block() -> None:
    x = tokens(6, 5)
    expected = x.numpy().reshape(2, 3, 2, 3, 2, 5).max((2, 4)).reshape(2, 9, 5)
    np.testing.assert_array_equal(build_compressor("maxpool", 4, 5)[0](x).numpy(), expected)


@pytest.mark.parametrize("factor", [2, 3, 4, 6, 12])
def test_adaptive_pooling_is_the_mean_of_each_cell(factor: int) -> None:
    x = tokens(6, 3)
    rows, columns = nearly_square(36 // factor)
    grid, expected = x.numpy().reshape(2, 6, 6, 3), np.zeros((2, rows, columns, 3), np.float32)
    for r in range(rows):
        for c in range(columns):
            high, wide = (
                slice(r * 6 // rows, -(-(r + 1) * 6 // rows)),
                slice(c * 6 // columns, -(-(c + 1) * 6 // columns)),
            )
            expected[:, r, c] = grid[:, high, wide].mean((1, 2))
    np.testing.assert_allclose(AdaptivePooling(factor)(x).numpy(), expected.reshape(2, -1, 3), atol=1e-6)


def test_matryoshka_scales_are_nested_and_one_is_chosen() -> None:
    x, nested = tokens(4, 3), Matryoshka(4)
    assert nested.scales(4) == [1, 4, 16]
    coarse_of_fine = build_compressor("avgpool", 4, 3)[0](nested(x))
    nested.choose(16, 4)
    torch.testing.assert_close(nested(x), coarse_of_fine)
    with pytest.raises(ValueError, match="the scale must be one of"):
        nested.choose(9, 4)


def test_frames_merge_into_their_mean_and_one_image_stays() -> None:
    views = torch.randn(2, 5, 4, 3)
    merged = FrameMerging(2)(views)
    assert merged.shape == (2, 3, 4, 3)
    torch.testing.assert_close(merged[:, 1], views[:, 2:4].mean(1))
    torch.testing.assert_close(merged[:, 2], views[:, 4])
    assert torch.equal(FrameMerging(4)(views[:, :1]), views[:, :1])


@pytest.mark.parametrize("prefix", [1, 0])
def test_importance_is_the_encoders_own_attention(prefix: int) -> None:
    """Against the probabilities of the last block's attention, computed from its input by hand."""
    vision = VisionEncoder(catalogue.encoder("vit-micro"), 64).eval()
    kept: list[torch.Tensor] = []
    attn: Any = vision.blocks[-1].attn
    attn.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0]))
    with torch.inference_mode(), LastAttention() as caught:
        vision(torch.randn(2, 3, 64, 64, generator=GENERATOR))
        q, k, _ = attn.qkv(kept[0]).reshape(2, 17, 3, 2, 32).permute(2, 0, 3, 1, 4)
        probabilities = (q @ k.transpose(-1, -2) / 32**0.5).softmax(-1).mean(1)
    expected = probabilities[:, 0, 1:] if prefix else probabilities.mean(1)[:, 1:]
    torch.testing.assert_close(importance(caught.queries, caught.keys, 1, bool(prefix)), expected)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_visionzip_keeps_dominant_tokens_and_merges_the_others_into_contextual_ones() -> None:
    x, scores = tokens(6, 4, 1), torch.rand(1, 36, generator=GENERATOR)
    keys = torch.randn(1, 2, 36, 3, generator=GENERATOR)
    found = visionzip(x, scores, keys, 18)[0].numpy()
    dominant = sorted(np.argsort(-scores[0].numpy())[:15])
    rest = [index for index in range(36) if index not in dominant]
    metric, targets = keys.mean(1)[0].numpy(), [rest[place * 21 // 3] for place in range(3)]
    groups: dict[int, list[int]] = {target: [] for target in targets}
    for index in rest:
        if index not in targets:
            groups[max(targets, key=lambda t, i=index: cosine(metric[t], metric[i]))].append(index)
    values = x[0].numpy()
    contextual = [values[t] + (values[members].mean(0) if members else 0) for t, members in groups.items()]
    np.testing.assert_allclose(found, np.stack([*values[dominant], *contextual]), atol=1e-5)


def test_prumerge_adds_what_the_nearest_dropped_tokens_weigh() -> None:
    x, scores = tokens(7, 4, 1), torch.rand(1, 49, generator=GENERATOR)
    keys = torch.randn(1, 2, 49, 3, generator=GENERATOR)
    found = prumerge(x, scores, keys, 7)[0].numpy()
    values, weight = x[0].numpy(), scores[0].numpy()
    flat = keys[0].transpose(0, 1).flatten(1).numpy()
    kept = sorted(np.argsort(-weight)[:6])
    dropped = [index for index in range(49) if index not in kept]
    expected = []
    for index in kept:
        near = sorted(dropped, key=lambda other, i=index: -cosine(flat[i], flat[other]))[:32]
        expected.append(values[index] + sum(weight[other] * values[other] for other in near))
    expected.append(sum(weight[other] * values[other] for other in dropped))
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)


def test_three_layers_are_a_two_layer_mlp_and_one_more() -> None:
    projector, x = build_projector("mlp-3", 4, 8, 1), tokens(3, 4)
    w1, b1, w2, b2, w3, b3 = projector.parameters()
    expected = F.linear(F.gelu(F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)), w3, b3)
    torch.testing.assert_close(projector(x), expected)


def test_deco_is_pooling_and_the_mlp() -> None:
    projector, x = build_projector("deco", 4, 8, 9, (6, 6)), tokens(6, 4)
    pooled = x.reshape(2, 2, 3, 2, 3, 4).mean((2, 4)).reshape(2, 4, 4)
    w1, b1, w2, b2 = projector.parameters()
    torch.testing.assert_close(projector(x), F.linear(F.gelu(F.linear(pooled, w1, b1)), w2, b2))


@pytest.mark.parametrize("factor", [1, 4])
def test_ldp_is_mobilenet_v3s_blocks_of_torchvision(factor: int) -> None:
    from timm.layers import LayerNorm2d  # type: ignore[attr-defined]
    from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig

    projector, x = Ldp(4, 32, factor).eval(), tokens(6, 4)
    grid = projector.mlp(x).transpose(1, 2).reshape(2, 32, 6, 6)
    for index, stride in enumerate((1, round(factor**0.5))):
        shape = InvertedResidualConfig(32, 3, 32, 32, True, "HS", stride, 1, 1)
        theirs = InvertedResidual(shape, lambda width: LayerNorm2d(width, eps=1e-5)).eval()
        theirs.use_res_connect = index == 0
        own = projector.blocks[index].state_dict()
        order = ["depthwise.weight", "norm1.weight", "norm1.bias", "squeeze.1.weight", "squeeze.1.bias",
                 "squeeze.3.weight", "squeeze.3.bias", "pointwise.weight", "norm2.weight", "norm2.bias"]  # fmt: skip
        theirs.load_state_dict(dict(zip(theirs.state_dict(), (own[name] for name in order), strict=True)))
        grid = theirs(grid)
    torch.testing.assert_close(projector(x), grid.flatten(2).transpose(1, 2))


def test_c_abstractor_is_stages_around_pooling() -> None:
    projector, x = CAbstractor(32, 64, 6, 4).eval(), tokens(6, 32)
    grid = projector.before((x + projector.positions).transpose(1, 2).reshape(2, 32, 6, 6))
    pooled = grid.reshape(2, 64, 3, 2, 3, 2).mean((3, 5))
    w1, b1, w2, b2 = projector.readout.parameters()
    flat = projector.after(pooled).flatten(2).transpose(1, 2)
    torch.testing.assert_close(projector(x), F.linear(F.silu(F.linear(flat, w1, b1)), w2, b2))
    block: Any = projector.before.b1  # a RegNet block by hand
    a = block.conv1.bn(F.conv2d(grid[:, :32], block.conv1.conv.weight))  # norm and SiLU in one
    a = block.conv2.bn(F.conv2d(a, block.conv2.conv.weight, padding=1, groups=64))
    s = F.conv2d(F.silu(F.conv2d(a.mean((2, 3), keepdim=True), block.se.fc1.weight, block.se.fc1.bias)),
                 block.se.fc2.weight, block.se.fc2.bias).sigmoid()  # fmt: skip
    a = block.conv3.bn(F.conv2d(a * s, block.conv3.conv.weight))
    short = block.downsample.bn(F.conv2d(grid[:, :32], block.downsample.conv.weight))
    torch.testing.assert_close(block(grid[:, :32]), F.silu(a + short))


def test_deformable_attention_is_transformers_own() -> None:
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMultiscaleDeformableAttention

    config = DeformableDetrConfig(d_model=64, num_feature_levels=1, disable_custom_kernels=True)
    theirs = DeformableDetrMultiscaleDeformableAttention(config, num_heads=2, n_points=4)
    ours = DeformableAttention(64, 2)
    nn.init.normal_(ours.sampling_offsets.weight, std=0.1)
    theirs.load_state_dict(ours.state_dict())
    queries, values, points = tokens(3, 64), tokens(6, 64), torch.rand(9, 2, generator=GENERATOR)
    expected = theirs(
        queries, encoder_hidden_states=values, reference_points=points[None, :, None].expand(2, -1, -1, -1),
        spatial_shapes=torch.tensor([[6, 6]]), spatial_shapes_list=[(6, 6)], level_start_index=torch.tensor([0]),
    )[0]  # fmt: skip
    torch.testing.assert_close(ours(queries, points, values), expected, atol=1e-5, rtol=1e-4)


def test_d_abstractor_asks_from_pooled_features_at_the_centres_of_the_cells() -> None:
    projector, x = DAbstractor(32, 64, 6, 4).eval(), tokens(6, 32)
    np.testing.assert_allclose(
        projector.points[:4].detach(), [[1 / 6, 1 / 6], [0.5, 1 / 6], [5 / 6, 1 / 6], [1 / 6, 0.5]]
    )
    seen: list[torch.Tensor] = []
    projector.layers[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    projector(x)
    entry = projector.entry(x) + projector.positions
    torch.testing.assert_close(seen[0], entry.reshape(2, 3, 2, 3, 2, 64).mean((2, 4)).reshape(2, 9, 64))


def test_q_former_is_bert_with_cross_attention_in_every_second_layer() -> None:
    """The first layer, with cross-attention, and the second, without, written out."""
    projector, x = QFormer(32, 64, 4).eval(), tokens(4, 32)
    states: list[torch.Tensor] = []
    layers: Any = projector.former.encoder.layer
    for layer in layers[:3]:
        layer.register_forward_pre_hook(lambda _module, inputs: states.append(inputs[0]))
    projector(x)

    def attend(block: Any, queries: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        inner, out = block.attention, block.output
        weights = (inner.query(queries) @ inner.key(source).transpose(1, 2) / 64**0.5).softmax(-1)
        return out.LayerNorm(out.dense(weights @ inner.value(source)) + queries)

    for index, layer in enumerate(layers[:2]):
        h = attend(layer.attention, states[index], states[index])
        if index == 0:
            h = attend(layer.crossattention, h, x)
        inner = F.gelu(layer.intermediate_query.dense(h))
        h = layer.output_query.LayerNorm(layer.output_query.dense(inner) + h)
        torch.testing.assert_close(states[index + 1], h, atol=1e-5, rtol=1e-4)
    assert not hasattr(layers[1], "crossattention")


def test_perceiver_is_transformers_flamingo_resampler() -> None:
    from transformers import IdeficsConfig
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    ours = Perceiver(128, 64, 8).eval()
    config = IdeficsConfig(vision_config={"embed_dim": 128}, perceiver_config={"qk_layer_norms_perceiver": False})
    theirs = IdeficsPerceiverResampler(config, embed_dim=128, depth=6, n_heads=2, head_dim=64, n_latents=8).eval()
    state = {"latents": ours.latents[0], "layer_norm.weight": ours.norm.weight, "layer_norm.bias": ours.norm.bias}
    for index, layer in enumerate(ours.layers):
        own: Any = layer
        own.feed_forward[2] = nn.ReLU()  # theirs differs from Flamingo in this
        keys, values = own.key_value.weight.chunk(2)
        norm, up, _, down = own.feed_forward
        for name, weight in {
            "0.context_layer_norm.weight": own.norm_context.weight, "0.context_layer_norm.bias": own.norm_context.bias,
            "0.latents_layer_norm.weight": own.norm_latents.weight, "0.latents_layer_norm.bias": own.norm_latents.bias,
            "0.q_proj.weight": own.query.weight, "0.k_proj.weight": keys, "0.v_proj.weight": values,
            "0.output_proj.weight": own.output.weight, "1.ln.weight": norm.weight, "1.ln.bias": norm.bias,
            "1.fc.weight": up.weight, "1.c_proj.weight": down.weight,
        }.items():  # fmt: skip
            state[f"blocks.{index}.{name}"] = weight
    theirs.load_state_dict(state, strict=True)
    x = tokens(4, 128)
    torch.testing.assert_close(ours(x), ours.exit(theirs(x)), atol=1e-5, rtol=1e-4)


def test_token_packer_reads_each_block_by_its_own_query() -> None:
    projector, x = TokenPacker(128, 64, 6, 4).eval(), tokens(6, 128)
    grid = x.reshape(2, 6, 6, 128)
    expected = torch.zeros(2, 3, 3, 128)
    attention = projector.attention
    coarse = grid.reshape(2, 3, 2, 3, 2, 128).mean((2, 4))  # bilinear by two, without aligned corners
    for r in range(3):
        for c in range(3):
            block = grid[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].reshape(2, 4, 128)
            q = attention.q_proj(projector.query(coarse[:, r, c])).reshape(2, 2, 64)
            k = attention.k_proj(projector.key(block)).reshape(2, 4, 2, 64)
            v = attention.v_proj(projector.value(block)).reshape(2, 4, 2, 64)
            weights = (torch.einsum("bhd,bnhd->bhn", q, k) / 8).softmax(-1)
            expected[:, r, c] = torch.einsum("bhn,bnhd->bhd", weights, v).reshape(2, 128)
    torch.testing.assert_close(projector(x), projector.exit(attention.out_proj(expected.reshape(2, 9, 128))))
