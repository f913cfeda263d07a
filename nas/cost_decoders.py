"""Closed-form cost of decoder stacks: of one candidate, and of many as columns, by the kinds of their layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nas import cost_language
from nas.cost_language import Layer
from nas.cost_rows import Column, Rows, gather
from nas.records import DTYPE_BYTES
from search_spaces import Candidate
from search_spaces.catalogue import LanguageModelSpec, LayerKind, language_model

FORM_AXES = ("lm", "lm_ffn", "lm_heads", "lm_experts")
STACK_AXES = ("lm", "lm_depth", "lm_layers", "prune_layer")


class Decoder:
    """A candidate's decoder stack: what its layers cost together. Raises: SpaceError."""

    def __init__(self, candidate: Candidate) -> None:
        lm, stack = cost_language.shaped(candidate), cost_language.layers(candidate)
        self.lm, self.stack, self.candidate = lm, stack, candidate
        self.hidden, self.vocab, self.depth = lm.hidden, lm.vocab, len(stack)
        self.embedding, self.prompt_width = cost_language.head_params(lm), 2 * lm.hidden + 3 * lm.ffn
        cut = candidate.prune_layer or len(stack)
        self.whole, self.short = stack[:cut], stack[cut:]

    def params(self) -> int:
        """Layers and the last norm."""
        return cost_language.body_params(self.lm, self.stack)

    def weight_bytes(self) -> int:
        return cost_language.body_bytes(self.lm, self.stack, self.candidate.lm_weights)

    def prefill_flops(self, prompt: int, dropped: int, past: int, kept_past: int) -> int:
        """Of a prompt behind `past` positions, or the `kept_past` of them that the later layers still have."""
        left = prompt - dropped
        whole = cost_language.stack_flops(self.lm, self.whole, prompt, past + prompt)
        return whole + cost_language.layers_flops(self.short, left, kept_past + left)

    def decode_flops(self, context: int, dropped: int) -> int:
        return cost_language.stack_flops(self.lm, self.whole, 1, context) + cost_language.layers_flops(
            self.short, 1, context - dropped
        )

    def cache_bytes(self, context: int, dropped: int) -> int:
        kept = self.candidate.kv_cache
        return cost_language.cache_bytes(self.whole, context, kept) + cost_language.cache_bytes(
            self.short, context - dropped, kept
        )


class Decoders:
    """Decoder stacks: how many layers of each kind run on the whole sequence and on the shortened one.

    A language model mixes tokens in up to a few kinds of layer; one with fewer runs none of the last ones.
    """

    def __init__(self, rows: Rows) -> None:
        first, form = rows.distinct(FORM_AXES)
        lms = [cost_language.shaped(rows.candidate(row)) for row in first.tolist()]
        sizes = [
            (lm.hidden, lm.vocab, 2 * lm.hidden + 3 * lm.ffn, cost_language.head_params(lm),
             cost_language.body_params(lm, ()))
            for lm in lms
        ]  # fmt: skip
        self.hidden, self.vocab, self.prompt_width, self.embedding, self.last_norm = gather(sizes, form)
        most = max(len(set(lm.layer_pattern)) for lm in lms)
        self._kinds = [Layers(rows, [layer_of_kind(lm, index) for lm in lms], form) for index in range(most)]
        self.depth = rows.numbers("lm_depth")
        counts = rows.decided(STACK_AXES, lambda candidate: _counts(candidate, most))
        self._whole, self._short = counts[:most], counts[most:]

    def params(self) -> Column:
        """Layers and the last norm."""
        return self.last_norm + self._both(lambda layers: layers.params)

    def weight_bytes(self) -> Column:
        """Of the layers and the last norm."""
        return self.last_norm * DTYPE_BYTES + self._both(lambda layers: layers.weight_bytes)

    def prefill_flops(self, prompt: Column, dropped: Column, past: Column, kept_past: Column) -> Column:
        """Layers and head on a prompt, of which the later layers see `dropped` positions less."""
        left = prompt - dropped
        return 2 * self.hidden * self.vocab + self._runs(
            lambda layers: layers.flops(prompt, past + prompt),
            lambda layers: layers.flops(left, kept_past + left),
        )

    def decode_flops(self, context: Column, dropped: Column) -> Column:
        """Layers and head on one new token."""
        one = np.ones_like(context)
        return 2 * self.hidden * self.vocab + self._runs(
            lambda layers: layers.flops(one, context), lambda layers: layers.flops(one, context - dropped)
        )

    def cache_bytes(self, context: Column, dropped: Column) -> Column:
        return self._runs(
            lambda layers: layers.cache_bytes(context), lambda layers: layers.cache_bytes(context - dropped)
        )

    def _both(self, figure: Callable[[Layers], Column]) -> Column:
        return self._runs(figure, figure)

    def _runs(self, whole: Callable[[Layers], Column], short: Callable[[Layers], Column]) -> Column:
        """A figure of all layers: of those on the whole sequence and of those on the shortened one."""
        found = np.zeros_like(self.hidden)
        for layers, long_count, short_count in zip(self._kinds, self._whole, self._short, strict=True):
            found += long_count * whole(layers)
            if short_count.any():
                found += short_count * short(layers)
        return found


class Layers:
    """One layer of each row, as columns of `nas.cost_language.Layer`."""

    def __init__(self, rows: Rows, layers: Sequence[Layer], form: Column) -> None:
        """`form` is which of `layers` a row has."""
        precisions, caches = rows.domains["lm_weights"], rows.domains["kv_cache"]
        sizes = [(one.params, one.token_products, one.attention_width, one.window, one.state) for one in layers]
        self.params, self._products, self._width, self._window, self._state = gather(sizes, form)
        weights = [[one.weight_bytes(str(precision)) for precision in precisions] for one in layers]
        positions = [[one.position_bytes(str(cache)) for cache in caches] for one in layers]
        self.weight_bytes: Column = np.array(weights, dtype=np.int64)[form, rows.codes("lm_weights")]
        self._position: Column = np.array(positions, dtype=np.int64)[form, rows.codes("kv_cache")]

    def flops(self, tokens: Column, context: Column) -> Column:
        return cost_language.flops_at(self._products, self._width, self._window, tokens, context)

    def cache_bytes(self, context: Column) -> Column:
        return cost_language.cache_at(self._position, self._state, self._window, context)


def kinds(lm: LanguageModelSpec) -> list[LayerKind]:
    """What its layers mix tokens by, in one order."""
    return sorted(set(lm.layer_pattern))


def layer_of_kind(lm: LanguageModelSpec, index: int) -> Layer:
    """The layer of a language model's kind of this place; the last where it has fewer."""
    several = kinds(lm)
    return cost_language.decoder_layer(lm, several[min(index, len(several) - 1)])


def _counts(candidate: Candidate, places: int) -> list[int]:
    """Layers of the kind of each place: first those before `prune_layer`, or all, then those after it."""
    lm = language_model(candidate.lm)
    stack = cost_language.kept_kinds(lm, candidate.lm_layers, candidate.lm_depth)
    cut = candidate.prune_layer or len(stack)
    names = [*kinds(lm), *[None] * places][:places]
    return [part.count(name) if name else 0 for part in (stack[:cut], stack[cut:]) for name in names]
