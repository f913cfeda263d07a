"""Every proxy keeps the contract, found by its file being there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import proxies
from proxies.batch import ProbeBatch
from proxies.isolation import isolated
from proxies.registry import MACHINERY, Proxy, ProxyError
from proxies.testing import ProxyContract, TinyMultimodal, tiny_batch


@pytest.mark.parametrize("name", proxies.names())
class TestEveryProxy(ProxyContract):
    @pytest.fixture(autouse=True)
    def _take(self, name: str) -> None:
        self.name = name

    # The contract's own tests take no parameter; pytest hands `name` to the fixture.


def test_proxies_that_ship() -> None:
    assert set(proxies.names()) == {
        *("dss", "effective-rank", "fisher", "flops", "grad-norm", "gradsign", "grasp", "jacob-cov", "naswot", "near"),
        *("params", "plain", "snip", "synflow", "zen", "zico"),
    }
    assert not MACHINERY & set(proxies.names())


def test_unknown_proxy_names_the_near_miss() -> None:
    with pytest.raises(ProxyError, match="did you mean 'synflow'"):
        proxies.get("sinflow")


def test_value_that_is_not_finite_is_refused_with_a_reason() -> None:
    endless = Proxy("endless", "p", "e", True, frozenset(), "any", False, lambda model, batch, splits: float("inf"))
    with pytest.raises(ProxyError, match="endless of this model is inf"):
        endless.score(TinyMultimodal(), tiny_batch())


def double_weights(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return 1.0


def test_undeclared_write_to_weights_is_caught() -> None:
    silent = Proxy("silent", "p", "e", True, frozenset(), "any", False, double_weights)
    with pytest.raises(RuntimeError, match="changes_weights"):
        silent.score(TinyMultimodal(), tiny_batch())


def test_declared_write_to_weights_is_undone() -> None:
    model = TinyMultimodal()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    Proxy("open", "p", "e", True, frozenset(), "any", True, double_weights).score(model, tiny_batch())
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


def test_isolation_puts_back_after_an_exception() -> None:
    model = TinyMultimodal().train()
    with pytest.raises(KeyError), isolated(model):
        assert not model.training
        raise KeyError
    assert model.training


def test_parts_of_a_batch_are_the_batch() -> None:
    batch = tiny_batch(5)
    parts = batch.split(2)
    assert [len(part) for part in parts] == [3, 2]
    assert torch.equal(torch.cat([part.input_ids for part in parts]), batch.input_ids)
    assert sum(part.targets for part in parts) == batch.targets
