"""The Proxy record, the decorator that makes one, and exact lookup by name.

A proxy lives in a file of its own: `effective-rank` in `effective_rank.py`. Nothing else registers it.
"""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from proxies.batch import ProbeBatch

# The files of this package that hold no proxy.
MACHINERY = frozenset(
    {
        *("registry", "batch", "isolation", "interception", "testing", "gradients", "spectrum"),
        *("shared", "anatomy", "recording", "one_pass", "pairs", "probing"),
    }
)


class ProxyError(ValueError):
    """A proxy that is unknown, or that cannot say anything of this model; the message says why."""


class Output(Protocol):
    """What a scorable model's forward returns."""

    @property
    def loss(self) -> Tensor | None: ...

    @property
    def logits(self) -> Tensor: ...


class ScorableModel(Protocol):
    """What a proxy asks of a multimodal model, beside being a torch module.

    Shapes: B batch, N tokens of the encoder's grid, M visual tokens that enter the language model, T sequence, H hidden
    size. A model that can also reuse the encoder's output offers `vision_tokens(pixel_values) -> (B, N, D)`,
    `project_tokens(tokens) -> (B, M, H)` and `forward(vision_features=...)`; proxies of the decoder's layers find them
    as a list of layers outside of `vision` (`proxies.anatomy`), those of its embedding by `get_input_embeddings()`.
    """

    def __call__(
        self,
        *,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> Output:
        """`loss` is the mean cross entropy of the labels (B, T) shifted by one, -100 left out."""
        ...

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """pixel_values: (B, 3, R, R) -> (B, M, H), what enters the language model."""
        ...


Score = Callable[["nn.Module", "ProbeBatch", int], float]


@dataclass(frozen=True, slots=True)
class Proxy:
    """One way to score a model without training it."""

    name: str
    paper: str
    equation: str
    higher_is_better: bool
    needs: frozenset[str]  # of: grad, samples (the gradient of each), labels, data, weights
    families: str  # for which models the formula means something
    changes_weights: bool  # while it runs; isolation then keeps a copy
    reads_decoder: bool  # values of the language model, not its shapes alone
    compute: Score

    def score(self, model: nn.Module, batch: ProbeBatch, *, splits: int = 1) -> float:
        """The proxy's value: finite, the same for every number of splits; the model is left as found.

        Raises: ProxyError where the value is not finite or the proxy does not apply.
        """
        from proxies.isolation import isolated

        with isolated(model, restore_weights=self.changes_weights):
            value = float(self.compute(model, batch, splits))
        if not math.isfinite(value):
            raise ProxyError(f"{self.name} of this model is {value}, which ranks nothing")
        return value


def proxy(
    *,
    name: str,
    paper: str,
    equation: str,
    higher_is_better: bool = True,
    needs: frozenset[str] = frozenset(),
    families: str = "any",
    changes_weights: bool = False,
    reads_decoder: bool = True,
) -> Callable[[Score], Proxy]:
    """Makes a function `(model, batch, splits) -> float` the proxy of its file."""

    def make(compute: Score) -> Proxy:
        return Proxy(name, paper, equation, higher_is_better, needs, families, changes_weights, reads_decoder, compute)

    return make


def names() -> list[str]:
    """Every proxy there is a file of, in alphabetical order; none of them is imported."""
    files = pkgutil.iter_modules(importlib.import_module("proxies").__path__)
    return sorted(file.name.replace("_", "-") for file in files if file.name not in MACHINERY)


def check(name: str) -> None:
    """Raises: ProxyError with the near miss where no proxy has this name."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ProxyError(f"no proxy named {name!r}; {hint} (see `nas proxies list`)")


def get(name: str) -> Proxy:
    """The proxy of exactly this name. Raises: ProxyError with the near miss."""
    check(name)
    file = name.replace("-", "_")
    module: Any = importlib.import_module(f"proxies.{file}")
    found = [value for value in vars(module).values() if isinstance(value, Proxy)]
    if [one.name for one in found] != [name]:
        raise ProxyError(f"proxies/{file}.py must define exactly one proxy, named {name!r}, but defines {len(found)}")
    return found[0]
