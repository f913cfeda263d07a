"""Runtimes that a candidate can run in. Latency belongs to a device and a runtime, never to a device alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from nas.errors import UnknownNameError
from nas.latency.blocks import BlockSpec
from search_spaces.reading import hint

if TYPE_CHECKING:
    from torch import Tensor

    from nas.latency.jobs import Job
    from nas.model import MultimodalLM

# Every runtime with the number formats that it can be asked for; the first is the default.
RUNTIMES: dict[str, tuple[str, ...]] = {
    "torch-eager": ("fp32",),
    "torch-compile": ("fp32",),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16"),
}


class Stages(Protocol):
    """One candidate, loaded in a runtime: one call a stage. B batch, M visual tokens, T prompt, H hidden size."""

    def vision(self, pixels: Tensor) -> Any:
        """(B, 3, R, R) or (B, V, 3, R, R) -> tokens; what is projected, where both are one graph."""

    def projector(self, tokens: Any) -> Tensor:
        """-> (B, M, H)."""

    def begin(self, batch: int, past: int) -> None:
        """A KV cache that holds `past` positions of earlier turns; not timed."""

    def prefill(self, ids: Tensor, visual: Tensor) -> Tensor:
        """ids: (B, T), visual: (B, M, H) -> newest token ids (B, 1)."""

    def step(self, newest: Tensor) -> Tensor:
        """One decode step: (B, 1) -> (B, 1)."""

    def kv_bytes(self) -> int:
        """Size of the KV cache as it is now."""


class Backend(Protocol):
    """One runtime in one number format."""

    def job(self, block: BlockSpec) -> Job:
        """A block, ready to be timed."""

    def load(self, model: MultimodalLM) -> Stages:
        """A candidate, ready for requests."""


def check(runtime: str, dtype: str) -> None:
    """Raises: UnknownNameError with the near miss."""
    if runtime not in RUNTIMES:
        raise UnknownNameError(f"no runtime named {runtime!r}; {hint(runtime, list(RUNTIMES), 'known')}")
    if dtype not in RUNTIMES[runtime]:
        raise UnknownNameError(f"runtime {runtime} has no dtype {dtype!r}; it has: {', '.join(RUNTIMES[runtime])}")


def torch_threads(runtime: str, threads: int) -> int:
    """Threads of torch beside a runtime: one where the runtime has its own.

    Torch prepares pictures and looks tokens up there too, and its threads spin for milliseconds after each call: ONNX
    Runtime's next graph took up to a half longer.
    """
    return threads if runtime.startswith("torch") else 1


def backend(runtime: str, dtype: str, threads: int) -> Backend:
    """Raises: UnknownNameError, MissingPackageError."""
    check(runtime, dtype)
    if runtime == "torch-eager":
        from nas.latency.backends.eager import EagerBackend

        return EagerBackend()
    if runtime == "torch-compile":
        from nas.latency.backends.compiled import CompiledBackend

        return CompiledBackend()
    from nas.latency.backends.graph import GraphBackend

    if runtime == "onnxruntime":
        from nas.latency.backends.onnx_runtime import OnnxRuntime

        return GraphBackend(OnnxRuntime(dtype, threads))
    from nas.latency.backends.openvino_runtime import OpenVino

    return GraphBackend(OpenVino(dtype, threads))
