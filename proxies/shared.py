"""What several proxies need of one model and one batch is made once: gradients, recorded activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

    from proxies.batch import ProbeBatch

T = TypeVar("T")


class Reach(IntEnum):
    """How far a pass goes; each gives what the ones before it give."""

    ACTIVATIONS = 0  # forward
    LOSS = 1  # to the labels
    GRADIENTS = 2  # and back to weights and layers' outputs
    SAMPLES = 3  # of each sample alone


@dataclass(slots=True)
class _Shared:
    reach: Reach
    kept: dict[tuple[str, int, int, int], tuple[Any, ...]] = field(default_factory=dict)


_shared: ContextVar[_Shared | None] = ContextVar("shared", default=None)


@contextmanager
def shared_passes(reach: Reach = Reach.ACTIVATIONS) -> Iterator[None]:
    """Inside, results of `once` are kept, and every pass goes as far as `reach`, which is then the only one.

    The model's weights must stay as they are.
    """
    token = _shared.set(_Shared(reach))
    try:
        yield
    finally:
        _shared.reset(token)


def reach_of(needs: Set[str]) -> Reach:
    """How far a proxy of these needs asks the pass to go; gradients of other things than the labels are its own."""
    if "labels" not in needs:
        return Reach.ACTIVATIONS
    return Reach.SAMPLES if "samples" in needs else Reach.GRADIENTS if "grad" in needs else Reach.LOSS


def reach_inside(wanted: Reach) -> Reach:
    """How far a pass must go where `wanted` is what its caller reads."""
    shared = _shared.get()
    return wanted if shared is None else max(wanted, shared.reach)


def once(name: str, model: nn.Module, batch: ProbeBatch, splits: int, make: Callable[[], T]) -> T:
    """`make()`, or what it returned before for the same model, batch and splits inside `shared_passes`.

    Whoever takes it must not write to it.
    """
    shared = _shared.get()
    if shared is None:
        return make()
    key = (name, id(model), id(batch), splits)
    if key not in shared.kept:
        shared.kept[key] = (make(), model, batch)  # both held, so that their ids stay theirs
    result: T = shared.kept[key][0]
    return result
