"""Weight-only quantisation of a decoder's matrices, by torch's own kernels: int8 a row, int4 in groups of 32.

The kernels multiply bfloat16 rows with narrow weights. They are made for a decode step; with many rows int8 weights are
widened first, while int4 has no other way back from the kernel's layout and is slower than float32 there.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.cost_language import INT4_GROUP, INT4_ROWS

FEW_ROWS = 16  # up to which the int8 kernel beats widening the weights
LEVELS = 15  # of int4


class Int8Linear(nn.Module):
    """Symmetric int8 with one float32 scale an output row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(1).clamp(min=1e-8) / 127
        self.codes: Tensor
        self.scales: Tensor
        self.register_buffer("codes", (weight / scales[:, None]).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        """rows: (..., in) -> (..., out), in the dtype that came in."""
        flat = rows.reshape(-1, self.in_features)
        if flat.shape[0] <= FEW_ROWS:
            narrow = flat.to(torch.bfloat16)
            out = torch._weight_int8pack_mm(narrow, self.codes, self.scales.to(torch.bfloat16))
        else:
            out = (flat @ self.codes.to(flat.dtype).T) * self.scales
        return _finished(out, rows, self.bias)


class Int4Linear(nn.Module):
    """Asymmetric int4 with a bfloat16 scale and centre a group of 32 inputs.

    `codes` holds two weights a byte, as saved; at the first call it becomes the kernel's own layout, of the same size.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        groups = linear.weight.detach().float().reshape(self.out_features, -1, INT4_GROUP)
        low, high = groups.amin(-1), groups.amax(-1)
        scales = ((high - low) / LEVELS).clamp(min=1e-8)
        codes = ((groups - low[..., None]) / scales[..., None]).round().clamp(0, LEVELS).to(torch.uint8)
        codes = codes.reshape(self.out_features, -1, 2)
        centred = torch.stack([scales, low + 8 * scales], -1).transpose(0, 1)  # the kernel counts from the middle level
        self.codes: Tensor
        self.scales_and_centres: Tensor
        self.register_buffer("codes", codes[..., 0] | (codes[..., 1] << 4))
        self.register_buffer("scales_and_centres", centred.contiguous().to(torch.bfloat16))
        self.bias = linear.bias
        self.packed = False
        self._register_state_dict_hook(_portable)  # type: ignore[no-untyped-call]

    def forward(self, rows: Tensor) -> Tensor:
        """rows: (..., in) -> (..., out), in the dtype that came in."""
        if not self.packed and not self.codes.is_meta:
            whole = torch.stack([self.codes & LEVELS, self.codes >> 4], -1).reshape(self.out_features, -1)
            self.codes = torch._convert_weight_to_int4pack_for_cpu(whole.to(torch.int32), 1)
            self.packed = True
        flat = rows.reshape(-1, self.in_features).to(torch.bfloat16)
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.codes, INT4_GROUP, self.scales_and_centres)
        return _finished(out, rows, self.bias)

    def portable_codes(self) -> Tensor:
        """Two weights a byte again: what the kernel gives for the unit vectors at scale 1 and centre 0."""
        unit = torch.eye(self.in_features, dtype=torch.bfloat16)
        plain = torch.zeros_like(self.scales_and_centres)
        plain[..., 0] = 1
        found = torch.ops.aten._weight_int4pack_mm_for_cpu(unit, self.codes, INT4_GROUP, plain)
        whole = (found.T.float() + 8).round().to(torch.uint8).reshape(self.out_features, -1, 2)
        pairs: Tensor = whole[..., 0] | (whole[..., 1] << 4)
        return pairs


def _portable(module: Int4Linear, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The layout that kernels want differs from machine to machine: it is never saved."""
    if module.packed:
        state[f"{prefix}codes"] = module.portable_codes()


def _finished(out: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
    out = out.to(rows.dtype).reshape(*rows.shape[:-1], -1)
    return out if bias is None else out + bias


def quantise(decoder: nn.Module, weights: Literal["native", "int8", "int4"]) -> None:
    """Replaces the matrices of a decoder's layers in place; embedding, head, norms and experts stay as they are."""
    if weights == "native":
        return
    for module in list(decoder.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear and name != "lm_head":
                if weights == "int8":
                    setattr(module, name, Int8Linear(child))
                elif child.out_features % INT4_ROWS == 0 and child.in_features % INT4_GROUP == 0:
                    setattr(module, name, Int4Linear(child))
