"""Closed-form cost of a language model of any form: parameters, FLOPs, cache and weight bytes. No torch.

Every layer is a list of matrices and a number of vector parameters; FLOPs, parameters and quantised bytes are read off
that one list. Norms, activations, rotary positions and the router's sort are not counted as FLOPs (below 1 %).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, TypeVar

from nas.depth import kept_layers
from nas.records import DTYPE_BYTES
from search_spaces import Candidate
from search_spaces.catalogue import LanguageModelSpec, LayerKind, SpaceError, language_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Count = TypeVar("Count", int, "NDArray[np.int64]")  # one number, or a column of them
INT4_GROUP = 32  # weights that share a scale and a zero point, bfloat16 each
INT4_ROWS = 16  # the int4 kernel takes output widths that this divides
Matrix = tuple[int, int]  # (out, in)


@dataclass(frozen=True, slots=True)
class Form:
    """What tells one family's decoder layer from Llama's."""

    norms: int = 2
    norm_vectors: int = 1  # 2 with a bias (LayerNorm), 0 without parameters
    qk_norm: str = ""  # "head": over one head; "all": over all heads together
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    gated: bool = True
    head_bias: bool = False


FORMS = {
    "llama": Form(), "mistral": Form(), "smollm3": Form(), "phi3": Form(), "mixtral": Form(),
    "qwen2": Form(qkv_bias=True), "qwen3": Form(qk_norm="head"),
    "gemma2": Form(norms=4), "gemma3_text": Form(norms=4, qk_norm="head"),
    "phi": Form(norms=1, norm_vectors=2, qkv_bias=True, output_bias=True, mlp_bias=True, gated=False, head_bias=True),
    "olmo": Form(norm_vectors=0), "olmo2": Form(qk_norm="all"), "lfm2": Form(qk_norm="head"),
    "olmoe": Form(qk_norm="all"), "qwen2_moe": Form(qkv_bias=True), "qwen3_moe": Form(qk_norm="head"),
    "mamba": Form(norms=1), "mamba2": Form(norms=1), "falcon_h1": Form(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer. Of `experts` matrices only `active` out of `expert_count` copies run for a token."""

    matrices: tuple[Matrix, ...]
    vectors: int  # parameters outside of matrices
    experts: tuple[Matrix, ...] = ()
    expert_count: int = 0
    active: int = 0
    attention_width: int = 0  # query heads x head size
    cache_width: int = 0  # keys and values kept of one position
    kv_heads: int = 0
    window: int = 0  # positions that are seen; 0 = all
    state: int = 0  # numbers kept of a sequence, whatever its length
    scan: int = 0  # multiply-adds for one token outside of matrices: a state's recurrence, a router

    @property
    def params(self) -> int:
        return _size(self.matrices) + self.vectors + self.expert_count * _size(self.experts)

    @property
    def active_matrices(self) -> int:
        """Weights that one token is multiplied by."""
        return _size(self.matrices) + self.active * _size(self.experts)

    def flops(self, tokens: int, context: int) -> int:
        """`tokens` new positions over a context that includes them."""
        return flops_at(self.token_products, self.attention_width, self.window, tokens, context)

    def cache_bytes(self, context: int, kv_cache: str) -> int:
        """Keys and values of a context, and the state. int8 keeps one float32 scale a head and position."""
        return cache_at(self.position_bytes(kv_cache), self.state, self.window, context)

    @property
    def token_products(self) -> int:
        """Multiply-adds for one token but those of attention."""
        return self.active_matrices + self.scan

    def position_bytes(self, kv_cache: str) -> int:
        """Cache of one position."""
        number = {"native": DTYPE_BYTES, "bf16": 2, "int8": 1}[kv_cache]
        scales = 2 * self.kv_heads * DTYPE_BYTES if kv_cache == "int8" else 0
        return self.cache_width * number + scales

    def weight_bytes(self, weights: str) -> int:
        """Bytes of all weights; experts and vectors stay float32."""
        rest = self.vectors + self.expert_count * _size(self.experts)
        return rest * DTYPE_BYTES + sum(matrix_bytes(matrix, weights) for matrix in self.matrices)


def flops_at(products: Count, attention_width: Count, window: Count, tokens: Count, context: Count) -> Count:
    """FLOPs of one layer (`Layer.flops`), or of many as columns."""
    beyond = context - (window - 1 + tokens)  # a prompt's mask skips no product
    seen: Count = context - beyond * ((beyond > 0) & (window > 0))
    return 2 * tokens * products + 4 * tokens * seen * attention_width


def cache_at(position_bytes: Count, state: Count, window: Count, context: Count) -> Count:
    """Bytes that one layer keeps of a context (`Layer.cache_bytes`), or many as columns."""
    beyond = context - (window - 1)  # transformers keeps the window less one
    kept: Count = context - beyond * ((beyond > 0) & (window > 0))
    return kept * position_bytes + state * DTYPE_BYTES


def _size(matrices: Iterable[Matrix]) -> int:
    return sum(out * into for out, into in matrices)


def matrix_bytes(matrix: Matrix, weights: str) -> int:
    """int8: a float32 scale a row. int4: two bfloat16 a group, where the kernel takes the shape, else float32."""
    out, into = matrix
    if weights == "int8":
        return out * into + out * DTYPE_BYTES
    if weights == "int4" and out % INT4_ROWS == 0 and into % INT4_GROUP == 0:
        return out * into // 2 + out * (into // INT4_GROUP) * 4
    return out * into * DTYPE_BYTES


def shaped(candidate: Candidate) -> LanguageModelSpec:
    """The candidate's language model with its FFN, heads and experts, still at full depth. Raises: SpaceError."""
    spec = language_model(candidate.lm)
    return spec.resized(candidate.lm_ffn, candidate.lm_heads, candidate.lm_experts)


def kept_kinds(lm: LanguageModelSpec, rule: str, depth: int) -> tuple[LayerKind, ...]:
    """What the layers that stay mix tokens by."""
    if len(lm.layer_pattern) == 1:
        return lm.layer_pattern * depth
    return tuple(lm.layer_kinds[index] for index in kept_layers(rule, lm, depth))


def layers(candidate: Candidate) -> list[Layer]:
    """Every decoder layer of a candidate, in order. Raises: SpaceError."""
    lm = shaped(candidate)
    made = {kind: decoder_layer(lm, kind) for kind in set(lm.layer_pattern)}
    return [made[kind] for kind in kept_kinds(lm, candidate.lm_layers, candidate.lm_depth)]


def uniform_stack(lm: LanguageModelSpec, depth: int) -> list[Layer]:
    """`depth` layers spread evenly over a language model as published. Raises: SpaceError."""
    made = {kind: decoder_layer(lm, kind) for kind in set(lm.layer_pattern)}
    return [made[kind] for kind in kept_kinds(lm, "uniform", depth)]


def decoder_layer(lm: LanguageModelSpec, kind: LayerKind) -> Layer:
    """One layer of a kind. Raises: SpaceError for a form that no closed form is known of."""
    if lm.architecture not in FORMS:
        raise SpaceError(
            f"no closed form of model_type {lm.architecture!r} ({lm.name}); known: {', '.join(sorted(FORMS))}"
        )
    form, hidden = FORMS[lm.architecture], lm.hidden
    norms = form.norms * form.norm_vectors * hidden
    if kind == "mamba":
        return _mamba(lm, norms)
    if kind == "mamba2":
        return _mamba2(lm, norms, "", lm.config)
    dense = _feed_forward(lm, form)
    if kind == "conv":  # gated short convolution (LFM2): in, depthwise, out
        kernel = int(lm.config.get("conv_L_cache", 3))
        bias = 5 * hidden if lm.config.get("conv_bias") else 0
        return replace(
            dense, matrices=((3 * hidden, hidden), (hidden, hidden), *dense.matrices),
            vectors=hidden * kernel + bias + norms + dense.vectors, state=hidden * kernel, scan=hidden * kernel,
        )  # fmt: skip
    layer = _attention(lm, form, dense, norms)
    if kind == "sliding_attention":
        return replace(layer, window=int(lm.config.get("sliding_window") or 0))
    if kind == "hybrid":  # attention and Mamba2 side by side (Falcon-H1)
        beside = _mamba2(lm, 0, "mamba_", lm.config)
        return replace(
            layer, matrices=layer.matrices + beside.matrices, vectors=layer.vectors + beside.vectors,
            scan=beside.scan, state=beside.state,
        )  # fmt: skip
    return layer


def _attention(lm: LanguageModelSpec, form: Form, dense: Layer, norms: int) -> Layer:
    """Queries, keys, values and output in front of the feed-forward part."""
    hidden, queries, keys = lm.hidden, lm.heads * lm.head_dim, lm.kv_heads * lm.head_dim
    biased = bool(lm.config.get("attention_bias"))
    bias = (queries + 2 * keys if form.qkv_bias or biased else 0) + (hidden if form.output_bias or biased else 0)
    normed = {"": 0, "head": 2 * lm.head_dim, "all": queries + keys}[form.qk_norm]
    return replace(
        dense, matrices=((queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries), *dense.matrices),
        vectors=bias + normed + norms + dense.vectors, attention_width=queries, cache_width=2 * keys,
        kv_heads=lm.kv_heads,
    )  # fmt: skip


def _feed_forward(lm: LanguageModelSpec, form: Form) -> Layer:
    """The feed-forward part alone, dense or of experts with their router and what all tokens share."""
    hidden, ffn = lm.hidden, lm.ffn
    own: tuple[Matrix, ...] = (*((ffn, hidden),) * (2 if form.gated else 1), (hidden, ffn))
    count = int(lm.config.get("num_local_experts") or lm.config.get("num_experts") or 0)
    if not count:
        has_bias = form.mlp_bias or lm.config.get("mlp_bias")
        return Layer(own, sum(out for out, _ in own) if has_bias else 0)
    common: tuple[Matrix, ...] = ()
    if shared := int(lm.config.get("shared_expert_intermediate_size") or 0):
        common = ((shared, hidden), (shared, hidden), (hidden, shared), (1, hidden))
    router = count * hidden  # a parameter of its own that no kernel narrows
    active = int(lm.config.get("num_experts_per_tok", 2))
    return Layer(common, router, own, count, active, scan=router)


def _mamba(lm: LanguageModelSpec, norms: int) -> Layer:
    """Selective state space (Gu and Dao 2023): in, depthwise convolution, x, dt, recurrence, out."""
    get, hidden = lm.config.get, lm.hidden
    inner, size, kernel = int(get("expand", 2)) * hidden, int(get("state_size", 16)), int(get("conv_kernel", 4))
    rank = ceil(hidden / 16) if get("time_step_rank", "auto") == "auto" else int(get("time_step_rank", 0))
    matrices = ((2 * inner, hidden), (rank + 2 * size, inner), (inner, rank), (hidden, inner))
    convolution = inner * kernel + (inner if get("use_conv_bias", True) else 0)
    bias = 2 * inner + hidden if get("use_bias", False) else 0
    # A, D and dt's bias; the recurrence multiplies the state by A, adds B x and is read by C: 3 a number of state
    return Layer(
        matrices, convolution + inner * size + 2 * inner + bias + norms, state=inner * (size + kernel),
        scan=inner * (kernel + 3 * size),
    )  # fmt: skip


def _mamba2(lm: LanguageModelSpec, norms: int, prefix: str, config: dict[str, object]) -> Layer:
    """State-space duality (Dao and Gu 2024); `prefix` is how a hybrid's config names the same sizes."""

    def size(own: str, other: str, default: int) -> int:
        value = config.get(other if prefix else own)
        return default if value is None or value == "auto" else int(str(value))

    hidden = lm.hidden
    inner = size("inner", "mamba_d_ssm", size("expand", "mamba_expand", 2) * hidden)
    heads, state = size("num_heads", "mamba_n_heads", 128), size("state_size", "mamba_d_state", 128)
    groups, kernel = size("n_groups", "mamba_n_groups", 1 if prefix else 8), size("conv_kernel", "mamba_d_conv", 4)
    width = inner + 2 * groups * state
    matrices = ((inner + width + heads, hidden), (hidden, inner))
    gate = inner if not prefix or config.get("mamba_rms_norm") else 0
    vectors = width * kernel + width + 3 * heads + gate + norms
    return Layer(matrices, vectors, state=inner * state + width * kernel, scan=width * kernel + 3 * inner * state)


def head_params(lm: LanguageModelSpec) -> int:
    """Embedding and vocabulary head; tied ones are one matrix."""
    form = FORMS.get(lm.architecture, Form())
    return lm.vocab * lm.hidden * (1 if lm.tied_embeddings else 2) + (lm.vocab if form.head_bias else 0)


def body_params(lm: LanguageModelSpec, stack: Sequence[Layer]) -> int:
    """Layers and the last norm."""
    last = FORMS.get(lm.architecture, Form()).norm_vectors * lm.hidden
    return sum(layer.params for layer in stack) + last


def stack_flops(lm: LanguageModelSpec, stack: Sequence[Layer], tokens: int, context: int) -> int:
    """`tokens` new positions that attend to `context`; the vocabulary is read at the last position only."""
    return layers_flops(stack, tokens, context) + 2 * lm.hidden * lm.vocab


def layers_flops(stack: Sequence[Layer], tokens: int, context: int) -> int:
    """Of decoder layers alone."""
    return sum(layer.flops(tokens, context) for layer in stack)


def cache_bytes(stack: Sequence[Layer], context: int, kv_cache: str = "native") -> int:
    """Keys, values and states of one sequence."""
    return sum(layer.cache_bytes(context, kv_cache) for layer in stack)


def body_bytes(lm: LanguageModelSpec, stack: Sequence[Layer], weights: str = "native") -> int:
    """Bytes of the layers and the last norm as they are kept in memory."""
    last = FORMS.get(lm.architecture, Form()).norm_vectors * lm.hidden
    return sum(layer.weight_bytes(weights) for layer in stack) + last * DTYPE_BYTES
