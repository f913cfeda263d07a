"""ProxyContract: the tests that every proxy passes. Subclass it, or run `check(proxy, model, batch)`."""

from __future__ import annotations

import math

import torch
from torch import nn

from proxies.batch import ProbeBatch
from proxies.registry import Proxy


class ProxyContract:
    """Inherit and set `proxy`; give `model()` and `batch()`."""

    proxy: Proxy

    def model(self) -> nn.Module:
        raise NotImplementedError

    def batch(self) -> ProbeBatch:
        raise NotImplementedError

    def test_gives_one_finite_float(self) -> None:
        value = self.proxy.score(self.model(), self.batch())
        assert isinstance(value, float)
        assert math.isfinite(value)

    def test_gives_the_same_value_twice_whatever_the_random_state(self) -> None:
        model = self.model()
        torch.manual_seed(1)
        first = self.proxy.score(model, self.batch())
        torch.manual_seed(2)
        assert self.proxy.score(model, self.batch()) == first

    def test_leaves_the_model_and_the_random_state_as_found(self) -> None:
        model = self.model().train()
        first_weight = next(model.parameters())
        first_weight.grad = torch.full_like(first_weight, 3.0)
        first_weight.requires_grad_(False)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.random.get_rng_state()
        self.proxy.score(model, self.batch())
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert model.training
        assert not first_weight.requires_grad
        assert first_weight.grad is not None
        assert bool((first_weight.grad == 3.0).all())
        assert all(weight.grad is None for weight in list(model.parameters())[1:])

    def test_works_on_a_single_example(self) -> None:
        batch = self.batch()
        assert math.isfinite(self.proxy.score(self.model(), batch.split(len(batch))[0]))
