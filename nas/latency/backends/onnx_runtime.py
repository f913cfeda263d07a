"""ONNX Runtime on the CPU, in float32 or with weights and activations of matrix products in int8 (dynamic)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor

from nas.errors import MissingPackageError
from nas.latency.backends.graph import Run


class OnnxRuntime:
    """Values stay in the runtime's own form between calls, so that keys and values are not copied out and in."""

    def __init__(self, dtype: str, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingPackageError("runtime onnxruntime is not installed; run: pip install onnxruntime") from error
        self.ort, self.dtype, self.threads = onnxruntime, dtype, threads

    def compiled(self, model: ModelProto) -> Run:
        options = self.ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")  # or one graph's threads hold up the next
        serialized = _int8(model) if self.dtype == "int8" else model.SerializeToString()
        session = self.ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        own, wrap = self.ort.OrtValue, self.ort.OrtValue.ortvalue_from_numpy

        def run(inputs: Mapping[str, Any]) -> list[Any]:
            fed = {name: value if isinstance(value, own) else wrap(value) for name, value in inputs.items()}
            found: list[Any] = session.run_with_ort_values(names, fed)
            return found

        return run

    def read(self, value: Any) -> Tensor:
        return torch.from_numpy(value.numpy())


def _int8(model: ModelProto) -> bytes:
    """Matrix products with int8 weights per channel; activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # the quantiser advises a preprocessing that the exporter has done
    with tempfile.TemporaryDirectory(prefix="nas-") as folder:
        file = Path(folder) / "quantised.onnx"
        quantize_dynamic(
            model, file, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": 1},
        )  # fmt: skip
        return file.read_bytes()
