"""What several proxies need of one model and one batch is made once: gradients, recorded activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

    from proxies.batch import ProbeBatch

T = TypeVar("T")
_kept: ContextVar[dict[tuple[str, int, int, int], tuple[Any, ...]] | None] = ContextVar("kept", default=None)


@contextmanager
def shared_passes() -> Iterator[None]:
    """Inside, results of `once` are kept. The model's weights must stay as they are."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def once(name: str, model: nn.Module, batch: ProbeBatch, splits: int, make: Callable[[], T]) -> T:
    """`make()`, or what it returned before for the same model, batch and splits inside `shared_passes`.

    Whoever takes it must not write to it.
    """
    kept = _kept.get()
    if kept is None:
        return make()
    key = (name, id(model), id(batch), splits)
    if key not in kept:
        kept[key] = (make(), model, batch)  # both held, so that their ids stay theirs
    result: T = kept[key][0]
    return result
