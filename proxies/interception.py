"""What torch functions are, whichever module or library calls them: activations, norms, attention, weights.

timm, transformers and hand-written models reach the same few torch functions by different classes; a
`TorchFunctionMode` sees every call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from proxies.batch import ProbeBatch
from proxies.registry import ProxyError

# The stream grows by orders of magnitude a layer and the map is of degree one, so a small start only shifts the log.
START = 1e-280
Function = Callable[..., Any]
Hear = Callable[[Tensor, Tensor, float], None]

_NAMES = (
    *("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "elu", "selu", "celu", "mish", "gelu", "silu"),
    *("hardswish", "hardsigmoid", "sigmoid", "sigmoid_", "tanh", "tanh_", "softplus"),
)
ACTIVATIONS: frozenset[Function] = frozenset(
    getattr(place, name) for place in (F, torch, Tensor) for name in _NAMES if hasattr(place, name)
)
PRODUCTS: frozenset[Function] = frozenset({torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__})
CASTS: frozenset[Function] = frozenset({Tensor.to, Tensor.float, Tensor.type_as, Tensor.double})


class PositiveProduct(torch.autograd.Function):
    """`operation(x, |w|)` of a positive double x, computed in the weight's own precision.

    x is scaled to at most one before and back after: nothing cancels where all terms are positive, so single precision
    keeps its relative accuracy over the whole range of double precision.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, operation: Callable[[Tensor, Tensor], Tensor], hear: Hear | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.operation, ctx.hear = operation, hear
        scaled, scale = _to_unit(x, weight.dtype)
        return operation(scaled, weight.abs()).double() * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, weight = ctx.saved_tensors
        scaled, scale = _to_unit(grads[0], weight.dtype)
        with torch.enable_grad():
            place = torch.zeros_like(x, dtype=weight.dtype, requires_grad=True)
            out = ctx.operation(place, weight.detach().abs())
        (grad,) = torch.autograd.grad(out, place, scaled)
        if ctx.hear is not None:
            own, own_scale = _to_unit(x, weight.dtype)
            with torch.enable_grad():
                size = weight.detach().abs().requires_grad_(True)
                out = ctx.operation(own, size)
            (of_weight,) = torch.autograd.grad(out, size, scaled)
            ctx.hear(size.detach(), of_weight, float(own_scale.log() + scale.log()))
        return grad.double() * scale, None, None, None


def _to_unit(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    largest = x.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return (x / largest).to(dtype), largest


class PositiveNetwork(TorchFunctionMode):
    """Turns whatever runs inside into a positive map of degree one, and adds up the flow through its weights.

    Weights by their magnitude; activations, positions (RoPE) and the division by a norm's statistic left out; what is
    added by a parameter (biases, position embeddings, class tokens) is zero; attention mixes values by its positive
    scores over their sum, held constant, so that queries and keys carry no flow; a gate g * u is sqrt(g u), of
    the degree and the sign of its factors.

    After a backward pass from R, `flow` is the sum over weights of |w| dR/d|w|. One weight tensor's sum is taken at
    its product: for y = W x it equals the sum of y dR/dy, so no gradient of a weight is formed unless `hear` asks for
    those of matrices and convolutions: it is called with |w|, a scaled dR/d|w| and the logarithm of the scale.
    """

    def __init__(self, hear: Hear | None = None) -> None:
        super().__init__()
        self.flow = 0.0
        self.hear = hear

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ACTIVATIONS:
            return args[0]
        if func in CASTS and args[0].dtype is torch.float64:
            return args[0]
        if func in (torch.rsqrt, Tensor.rsqrt):  # of an RMS norm written out
            return torch.ones_like(args[0])
        if func in (torch.cos, Tensor.cos, torch.sin, Tensor.sin):
            return torch.zeros_like(args[0]) if func in (torch.sin, Tensor.sin) else torch.ones_like(args[0])
        if func in HANDLERS:
            return HANDLERS[func](self, *args, **kwargs)
        if func in PRODUCTS and isinstance(args[1], Tensor):
            return self._product(args[0], args[1])
        return func(*_without_parameters(args), **kwargs)

    def count(self, y: Tensor) -> Tensor:
        """`y` came out of a product with a weight: its share of R is that weight's flow."""

        value = y.detach()  # a hook that held y itself would be a cycle that nothing collects

        def add(grad: Tensor) -> None:
            self.flow += float((grad * value).sum())

        if y.requires_grad:
            y.register_hook(add)  # type: ignore[no-untyped-call]
        return y

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        if isinstance(a, nn.Parameter) or isinstance(b, nn.Parameter):
            weight, x = (a, b) if isinstance(a, nn.Parameter) else (b, a)
            return self.count(x * weight.detach().abs())
        if a.requires_grad and b.requires_grad:
            return a.sqrt() * b.sqrt()
        return a * b

    def weighted(self, x: Tensor, weight: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """A linear operation with a weight."""
        y: Tensor = PositiveProduct.apply(x, weight, operation, self.hear)
        return self.count(y)

    def scaled(self, x: Tensor, weight: Tensor | None, channel_dim: int) -> Tensor:
        """A norm without its statistic: x * |weight| along the channels."""
        if weight is None:
            return x
        shape = [1] * x.ndim
        shape[channel_dim] = -1
        return self.count(x * weight.detach().abs().view(weight.shape if channel_dim < 0 else shape))

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        """(B, heads, Tq, d) x (B, heads, Tk, d) -> (B, heads, Tq, d_value)."""
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        scores = (query / query.max()).detach() @ (key / key.max()).detach().transpose(-2, -1)
        if is_causal:
            scores = scores.tril()
        if attn_mask is not None:
            allowed = attn_mask if attn_mask.dtype is torch.bool else attn_mask > -1
            scores = scores.masked_fill(~allowed, 0)
        return _normalised(scores, -1) @ value


def positive_flow(
    model: nn.Module, batch: ProbeBatch, what: str, hear: Callable[[Tensor, Tensor, float], None] | None = None
) -> tuple[float, float]:
    """(log R, flow as a share of R) of an image of ones, its mean visual token and one position of the language model.

    R is the sum of the logits. `hear` is called as `PositiveNetwork` does, with dR/d|w| as a share of R.
    Raises: ProxyError where the signal leaves double precision or finds no path.
    """
    image = torch.full_like(batch.pixel_values[:1], START, dtype=torch.float64, requires_grad=True)
    network = PositiveNetwork(hear)
    with torch.enable_grad():
        with network:
            token = model.encode_images(image).mean(dim=1, keepdim=True)  # type: ignore[operator]
            logits = model(inputs_embeds=token, logits_to_keep=1).logits
        out = logits.sum()
        total = float(out.detach())
        if not 0 < total < math.inf:
            raise ProxyError(f"{what}'s signal leaves double precision in this model: it arrives as {total:.0e}")
        (out / total).backward()  # every flow as a share of R: finite whatever R is
    if not network.flow > 0:
        raise ProxyError(f"{what} found no path through weights from the image to the logits")
    return math.log(total) - math.log(START), network.flow


def _normalised(scores: Tensor, dim: int) -> Tensor:
    """Positive scores over their sum, constant: were they not, each layer would count its signal three times."""
    positive = scores.detach().clamp_min(0)
    return positive / positive.sum(dim=dim, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)


def _without_parameters(args: Any) -> tuple[Any, ...]:
    return tuple(
        torch.zeros_like(arg) if isinstance(arg, nn.Parameter) and arg.is_floating_point() else arg for arg in args
    )


def _linear(network: PositiveNetwork, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return network.weighted(x, weight, F.linear)


def _conv2d(
    network: PositiveNetwork, x: Tensor, weight: Tensor, bias: Tensor | None = None, *geometry: Any, **named: Any
) -> Tensor:
    return network.weighted(x, weight, lambda a, w: F.conv2d(a, w, None, *geometry, **named))


def _norm(network: PositiveNetwork, x: Tensor, shape: Any, weight: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    return network.scaled(x, weight, -1)


def _group_norm(
    network: PositiveNetwork, x: Tensor, groups: int, weight: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    return network.scaled(x, weight, 1)


def _batch_norm(
    network: PositiveNetwork,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None = None,
    *_: Any,
    **__: Any,
) -> Tensor:
    return network.scaled(x, weight, 1)


def _softmax(network: PositiveNetwork, x: Tensor, dim: int = -1, *_: Any, **__: Any) -> Tensor:
    return _normalised(x, dim)


def _grouped(network: PositiveNetwork, *_: Any, **__: Any) -> Tensor:
    raise ProxyError("no positive form is known of experts, whose router picks by sign; leave lm_experts at 0")


HANDLERS: dict[Function, Callable[..., Tensor]] = {
    F.linear: _linear,
    F.conv2d: _conv2d,
    torch.conv2d: _conv2d,
    F.layer_norm: _norm,
    F.rms_norm: _norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    F.softmax: _softmax,
    torch.softmax: _softmax,
    Tensor.softmax: _softmax,
    F.scaled_dot_product_attention: PositiveNetwork.attention,
    torch._grouped_mm: _grouped,
}
