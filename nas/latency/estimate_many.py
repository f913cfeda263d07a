"""The middles of `nas.latency.estimate` for many candidates at once, as columns. No torch.

What comes before the decoder is taken block by block, for one picture or one grid of tokens, and by the few axes that
decide it; the decoder, whose lengths differ from row to row, is `nas.latency.work` written on columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hardware_profiles import HardwareProfile
from nas.cost_connector import IN_ENCODER
from nas.cost_cross import CrossStack
from nas.cost_decoders import FORM_AXES, Layers, kinds, layer_of_kind
from nas.cost_language import shaped
from nas.cost_many import LAYOUT_AXES
from nas.cost_request import RequestTokens, request_tokens
from nas.cost_rows import Column, Matrix, Rows, distinct, gather
from nas.cost_vision import Layout, layout, second_encoder, token_width
from nas.latency.amounts import grid_tokens
from nas.latency.blocks import Terms
from nas.latency.calibrated import CalibratedModel
from nas.latency.estimate import LAUNCH, PARTS, PREPROCESS, RUNTIME_FAMILIES, WEIGHT_BITS, Setting
from nas.latency.roofline import datasheet
from nas.latency.shares import shipped
from nas.latency.terms import preprocess_block, projector_block, vision_terms
from nas.latency.work import CROSS_KERNELS, DECODER_KERNELS, FEATURES, SHELL_KERNELS, block_work, features
from nas.records import DTYPE_BYTES
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder, language_model

SEEING_AXES = ("encoder", "encoder_depth", "resolution", "second_encoder", "tiling")
PRUNING_AXES = (*SEEING_AXES, "compression", "compression_factor")
CONNECTING_AXES = ("encoder", "resolution", "temporal_factor", "projector", "compression", "compression_factor")
PLAIN = {"compression": "none", "compression_factor": 1}


def requests_of(rows: Rows, workload: Workload) -> RequestTokens[Column]:
    """As `nas.latency.amounts`."""
    heard, tokens, dropped = rows.decided(("encoder", "resolution", "compression", "compression_factor"), grid_tokens)
    crosses = rows.decided(("projector",), lambda one: [int(one.crosses)])[0]
    seen: Layout[Column] = Layout(*rows.decided(LAYOUT_AXES, layout))
    return request_tokens(workload, heard, seen, tokens, dropped, crosses)


class PartWork(NamedTuple):
    """Of one part of every row."""

    features: Matrix  # (rows, FEATURES)
    kernels: Matrix  # as whole ones are started
    rows: Matrix | float  # of the left side of matrix products


class Estimates:
    """Milliseconds of the parts of every row on one device."""

    def __init__(
        self, rows: Rows, workload: Workload, profile: HardwareProfile, model: CalibratedModel | None, setting: Setting
    ) -> None:
        self.rows, self.workload = rows, workload
        self.profile, self.model, self.setting = profile, model, setting
        self._works: dict[str, Callable[[], PartWork]] = {
            "preprocess_ms": self._preprocessing, "vision_ms": self._seeing, "projector_ms": self._connecting,
            "prefill_ms": self._prefill, "tpot_ms": self._step,
        }  # fmt: skip

    def ms(self, part: str) -> Matrix:
        """A part as `Latency` names it. Raises: ProfileError."""
        if part == "preprocess_ms" and self.model is None:
            photos: Matrix = self.request.photos.astype(np.float64)
            return photos * (self.workload.batch * PREPROCESS.middle_ms)
        work = self._works[part]()
        if self.model is not None:
            calibrated: Matrix = work.features @ np.array(self.model.coefficients)
            return calibrated
        return self._datasheet_ms(part, work)

    @cached_property
    def request(self) -> RequestTokens[Column]:
        return requests_of(self.rows, self.workload)

    def _datasheet_ms(self, part: str, work: PartWork) -> Matrix:
        """As `nas.latency.estimate`: the share that published runs reach, or the profile's own, and kernel starts."""
        setting, own, phase = self.setting, self.profile.estimator, PARTS[part]
        sheet, bits = datasheet(self.profile, setting.dtype), WEIGHT_BITS[setting.dtype]
        at = dict(zip(FEATURES, work.features.T, strict=True))
        moved = at["weight_bytes"] * bits
        moved += (at["activation_bytes"] + at["convolution_bytes"]) * (32 if bits == 8 else bits)
        compute_s = (at["product_flops"] + at["convolution_flops"]) / sheet.peak_flops_per_s
        memory_s = moved / 32 / sheet.bandwidth_bytes_per_s
        convolves: Matrix | float = 0.0
        if phase == "vision":
            convolves = self.rows.figures(("encoder",), lambda one: [encoder(one.encoder).family == "cnn"])[0]
        runtime = RUNTIME_FAMILIES.get(setting.runtime, "")
        busy = shipped().middles_ms(phase, runtime, bits, sheet, compute_s, memory_s, work.rows, convolves)
        for eta, is_bound in ((own.eta_compute, memory_s <= compute_s), (own.eta_memory, memory_s > compute_s)):
            if eta is not None:
                busy = np.where(is_bound, 1e3 * np.maximum(compute_s, memory_s) / eta.mid, busy)
        if setting.runtime == "torch-eager":
            layers = self.rows.numbers("lm_depth") if phase != "vision" else 0
            kernel_ms = LAUNCH.middle_ms if own.op_overhead_us is None else own.op_overhead_us / 1e3
            busy = busy + kernel_ms * work.kernels + layers * (own.layer_overhead_us or 0.0) / 1e3
        return busy

    def _preprocessing(self) -> PartWork:
        photos = self.workload.batch * self.request.photos

        def each(one: Candidate) -> list[float]:
            return features(preprocess_block(one, 1))

        found = np.stack(self.rows.figures(("encoder", "resolution"), each), axis=1) * photos[:, None]
        return PartWork(found, found[:, 0], 1.0)

    def _seeing(self) -> PartWork:
        """Every picture by its encoders."""
        rows, pictures = self.rows, self.workload.batch * self.request.pictures

        def each(one: Candidate) -> list[float]:
            return _sum(vision_terms(one, 1))

        columns = np.stack(rows.figures(SEEING_AXES, lambda one: each(one.model_copy(update=PLAIN))), axis=1)
        pruned = np.array([name in IN_ENCODER for name in rows.domains["compression"]])[rows.codes("compression")]
        if pruned.any():
            columns[pruned] = np.stack(rows.where(pruned).figures(PRUNING_AXES, each), axis=1)
        return _times(columns, pictures)

    def _connecting(self) -> PartWork:
        """Every grid through compression and projector."""
        frames = self.workload.frames

        def each(one: Candidate) -> list[float]:
            return _sum([(1.0, projector_block(one, 1, frames))])

        rows = self.rows
        width = rows.decided(("encoder", "second_encoder", "tiling", "tiles"), _width)
        hidden = rows.decided(("lm",), lambda one: [language_model(one.lm).hidden])
        parts = distinct([*map(rows.codes, CONNECTING_AXES), *width, *hidden])
        columns = np.stack(rows.records(parts, each), axis=1)
        return _times(columns, self.workload.batch * self.request.grids)

    def _prefill(self) -> PartWork:
        asked, prompt_tokens = self.request, self.workload.prompt_tokens
        short = asked.prompt - asked.dropped
        return self._decoder(
            asked.prompt, asked.prompt + asked.past, short, short + asked.past, prompt_tokens, is_prefill=True
        )

    def _step(self) -> PartWork:
        one, context = np.ones(len(self.rows), dtype=np.int64), self.request.context
        return self._decoder(one, context, one, context - self.request.dropped, 1, is_prefill=False)

    def _decoder(
        self, tokens: Column, context: Column, short: Column, kept: Column, crossing: int, *, is_prefill: bool
    ) -> PartWork:
        """`tokens` new positions that attend to `context`; after pruning `short` of them to `kept`."""
        rows, batch, layer = self.rows, self.workload.batch, MeanLayers(self.rows)
        depth = rows.numbers("lm_depth")
        late = np.where(self.request.dropped > 0, depth - rows.numbers("prune_layer"), 0)
        vocab, hidden = layer.vocab, layer.hidden
        flops = batch * (2 * vocab * hidden + (depth - late) * layer.flops(tokens, context))
        moved = 8 * tokens * hidden + vocab + (depth - late) * layer.moved(tokens, context)
        if late.any():
            flops = flops + batch * late * layer.flops(short, kept)
            moved = moved + late * layer.moved(short, kept)
        weights = DTYPE_BYTES * vocab * hidden + depth * layer.weight_bytes
        kernels = SHELL_KERNELS + depth * DECODER_KERNELS
        crosses = rows.decided(("projector",), lambda one: [int(one.crosses)])[0]
        if crosses.any():
            one, count = CrossStack(hidden, np.ones_like(hidden)), CrossStack(hidden, depth * crosses).count
            visual = self.request.visual
            products = one.flops(crossing + 0 * hidden, visual) + (one.entry_flops(visual) if is_prefill else 0)
            flops = flops + batch * count * products
            moved = moved + count * (14 * crossing * hidden + one.cache_bytes(visual) / DTYPE_BYTES)
            weights = weights + count * DTYPE_BYTES * one.params
            kernels = kernels + count * CROSS_KERNELS
        columns = np.zeros((len(rows), len(FEATURES)))
        for name, column in (
            ("kernels", kernels), ("product_flops", flops), ("weight_bytes", weights),
            ("activation_bytes", batch * DTYPE_BYTES * moved),
        ):  # fmt: skip
            columns[:, FEATURES.index(name)] = column
        return PartWork(columns, columns[:, 0], batch * np.maximum(tokens, crossing * crosses))


class MeanLayers:
    """The mean layer of each row's language model, as `nas.latency.work` takes it."""

    def __init__(self, rows: Rows) -> None:
        first, form = rows.distinct(FORM_AXES)
        lms = [shaped(rows.candidate(row)) for row in first.tolist()]
        self.hidden, self.ffn, self.vocab = gather([(lm.hidden, lm.ffn, lm.vocab) for lm in lms], form)
        most = max(len(kinds(lm)) for lm in lms)
        self._layers = [Layers(rows, [layer_of_kind(lm, place) for lm in lms], form) for place in range(most)]
        shares = np.zeros((most, len(lms)))
        for column, lm in enumerate(lms):
            for place, kind in enumerate(kinds(lm)):
                shares[place, column] = lm.layer_kinds.count(kind) / lm.layers
        self._shares = shares[:, form]

    @property
    def weight_bytes(self) -> Matrix:
        return self._mean(lambda layer: layer.weight_bytes)

    def flops(self, tokens: Column, context: Column) -> Matrix:
        return self._mean(lambda layer: layer.flops(tokens, context))

    def moved(self, tokens: Column, context: Column) -> Matrix:
        """Numbers of four bytes."""
        cached = self._mean(lambda layer: layer.cache_bytes(context))
        found: Matrix = tokens * (10 * self.hidden + 5 * self.ffn) + cached / DTYPE_BYTES
        return found

    def _mean(self, figure: Callable[[Layers], Column]) -> Matrix:
        found: Matrix = sum(
            (share * figure(layer) for share, layer in zip(self._shares, self._layers, strict=True)), np.zeros(1)
        )
        return found


def _width(one: Candidate) -> Sequence[int]:
    return [token_width(one, encoder(one.encoder), second_encoder(one))]


def _sum(terms: Terms) -> list[float]:
    """Features of a part, and its kernels as whole ones are started."""
    total = np.sum([count * np.array(features(block)) for count, block in terms], axis=0)
    return [*total.tolist(), sum(block_work(block).times(count).kernels for count, block in terms)]


def _times(columns: Matrix, pictures: Column) -> PartWork:
    """Of so many pictures in one batch, whose weights are read and whose kernels are started once."""
    kernels, found = columns[:, -1], columns[:, :-1].copy()
    for name in ("product_flops", "convolution_flops", "activation_bytes", "convolution_bytes"):
        found[:, FEATURES.index(name)] *= pictures
    return PartWork(found, kernels, 1.0)
