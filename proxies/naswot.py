"""NASWOT: how differently the examples switch the units of the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxies.batch import ProbeBatch
from proxies.isolation import isolated
from proxies.registry import proxy

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU)


@proxy(
    paper="Mellor et al. 2021, arXiv 2006.04647",
    equation="eq. 2: log |K_H|, K_ij = N_A - Hamming(c_i, c_j)",
    needs=("images",),
)
def naswot(model: nn.Module, batch: ProbeBatch) -> float:
    """Log determinant of the kernel of agreeing units, per unit.

    Differs from the paper: units of GELU and SiLU count by the sign of their input, K is divided by N_A so that width
    does not decide alone, and 1e-3 is added to the diagonal, since alike examples would make it singular.
    """
    kernel = torch.zeros(len(batch), len(batch), dtype=torch.float64)
    units = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal units
        code = (inputs[0] > 0).reshape(len(batch), -1).to(torch.float32)
        kernel.add_((code @ code.T + (1 - code) @ (1 - code).T).double())
        units += code.shape[1]

    handles = [module.register_forward_hook(count) for module in model.modules() if _is_activation(module)]
    try:
        with isolated(model), torch.no_grad():
            model.eval()
            model(**batch.inputs(), logits_to_keep=1, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if not units:
        raise ValueError("the model has no activation module to read")
    kernel = kernel / units + 1e-3 * torch.eye(len(batch), dtype=torch.float64)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, ACTIVATIONS) or type(module).__name__ in {"SiLUActivation", "GELUActivation"}
