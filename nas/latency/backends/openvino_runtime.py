"""OpenVINO on the CPU, in float32 or, where the processor has it, bfloat16."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor

from nas.errors import ConfigError, MissingPackageError
from nas.latency.backends.graph import Run

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class OpenVino:
    """Without the precision hint OpenVINO would compute in bfloat16 wherever the processor can."""

    def __init__(self, dtype: str, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingPackageError("runtime openvino is not installed; run: pip install openvino") from error
        self.core = openvino.Core()
        able = self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if dtype == "bf16" and "BF16" not in able:
            raise ConfigError("dtype bf16 needs a processor with bfloat16 instructions, which this one lacks; use fp32")
        self.settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }

    def compiled(self, model: ModelProto) -> Run:
        network = self.core.compile_model(
            self.core.read_model(io.BytesIO(model.SerializeToString())), "CPU", self.settings
        )
        request = network.create_infer_request()
        count = len(network.outputs)

        def run(inputs: Mapping[str, Any]) -> list[Any]:
            found = request.infer(dict(inputs), share_inputs=True)
            return [found[index] for index in range(count)]

        return run

    def read(self, value: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(value)
