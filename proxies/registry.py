"""What a proxy is, and how it is found: by the file being there, by exact name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from proxies.batch import ProbeBatch

NOT_PROXIES = {"registry", "batch", "isolation", "testing"}


class ProxyError(ValueError):
    """A proxy that does not exist or breaks its contract."""


class VisionLanguageModel(Protocol):
    """What a proxy may ask of a model, besides being a torch module."""

    def __call__(self, **inputs: Any) -> Any: ...

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, M, H): the visual tokens that enter the language model."""
        ...


Score = Callable[[Any, "ProbeBatch"], float]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A score of an untrained network: one finite float."""

    name: str
    score: Score
    paper: str
    equation: str
    higher_is_better: bool
    needs: frozenset[str]  # of: gradients, labels, images


def proxy(*, paper: str, equation: str, higher_is_better: bool = True, needs: tuple[str, ...] = ()) -> Callable[[Score], Proxy]:
    """Declares the function below as the proxy of its file."""

    def declare(score: Score) -> Proxy:
        name = score.__module__.rsplit(".", 1)[-1].replace("_", "-")
        return Proxy(name, score, paper, equation, higher_is_better, frozenset(needs))

    return declare


@cache
def names() -> list[str]:
    """Every proxy there is: one per file of this package. Imports nothing heavy."""
    package = importlib.import_module("proxies").__path__
    return sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(package) if found.name not in NOT_PROXIES)


def get(name: str) -> Proxy:
    """Raises: ProxyError with the near miss."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}"
        raise ProxyError(f"no proxy named {name!r}; {hint} (see `nas proxies list`)")
    module = importlib.import_module(f"proxies.{name.replace('-', '_')}")
    found = [value for value in vars(module).values() if isinstance(value, Proxy) and value.name == name]
    if len(found) != 1:
        raise ProxyError(f"proxies/{name.replace('-', '_')}.py must declare exactly one @proxy, but declares {len(found)}")
    return found[0]
