"""Every proxy keeps the contract, found by its file being there."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

import proxies
from proxies.batch import ProbeBatch
from proxies.isolation import isolated
from proxies.registry import MACHINERY, Proxy, ProxyError
from proxies.shared import Reach, shared_passes
from proxies.testing import ProxyContract, TinyMultimodal, tiny_batch


@pytest.mark.parametrize("name", proxies.names())
class TestEveryProxy(ProxyContract):
    @pytest.fixture(autouse=True)
    def _take(self, name: str) -> None:
        self.name = name

    # The contract's own tests take no parameter; pytest hands `name` to the fixture.


def test_proxies_that_ship() -> None:
    assert set(proxies.names()) == {
        *(
            "params",
            "flops",
            "depth",
            "width",
            "depth-width",
            "depth-width2",
            "rank-budget",
            "visual-tokens",
            "kv-bytes",
        ),
        *("grad-norm", "snip", "grasp", "fisher", "plain", "synflow", "log-synflow", "zico", "gradsign", "dss"),
        *("jacob-cov", "naswot", "swap", "zen", "meco", "az-expressivity", "az-progressivity", "az-trainability"),
        *("effective-rank", "near", "w-pca", "attention-confidence", "softmax-confidence"),
        *("calibration-loss", "block-influence", "logme", "cka", "mutual-knn", "gromov-wasserstein", "token-alignment"),
        *("compression-cka", "compression-gw", "position-probe", "content-probe"),
    }
    assert not MACHINERY & set(proxies.names())


def test_unknown_proxy_names_the_near_miss() -> None:
    with pytest.raises(ProxyError, match="did you mean 'synflow'"):
        proxies.get("sinflow")


def test_value_that_is_not_finite_is_refused_with_a_reason() -> None:
    endless = Proxy(
        "endless", "p", "e", True, frozenset(), "any", False, False, lambda model, batch, splits: float("inf")
    )
    with pytest.raises(ProxyError, match="endless of this model is inf"):
        endless.score(TinyMultimodal(), tiny_batch())


def double_weights(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return 1.0


def test_undeclared_write_to_weights_is_caught() -> None:
    silent = Proxy("silent", "p", "e", True, frozenset(), "any", False, False, double_weights)
    with pytest.raises(RuntimeError, match="changes_weights"):
        silent.score(TinyMultimodal(), tiny_batch())


def test_declared_write_to_weights_is_undone() -> None:
    model = TinyMultimodal()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    Proxy("open", "p", "e", True, frozenset(), "any", True, False, double_weights).score(model, tiny_batch())
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


def test_passes_are_run_once_for_all_that_need_them() -> None:
    model, batch = TinyMultimodal(), tiny_batch()
    calls: list[int] = []
    handle = model.head.register_forward_hook(lambda *_: calls.append(1))
    alone = {}
    for name in ("naswot", "near", "swap", "snip", "plain", "grad-norm"):
        alone[name] = proxies.get(name).score(model, batch)
    assert len(calls) == 6
    calls.clear()
    with shared_passes():
        assert {name: proxies.get(name).score(model, batch) for name in alone} == alone
    assert len(calls) == 2  # one forward pass is recorded, one goes backward
    calls.clear()
    with shared_passes(Reach.GRADIENTS):
        assert {name: proxies.get(name).score(model, batch) for name in alone} == pytest.approx(alone)
    assert len(calls) == 1  # known beforehand, they are one
    handle.remove()


def test_all_that_share_a_pass_say_the_same_as_alone_of_each_sample() -> None:
    """Gradients of each sample asked for beside, the one pass runs sample by sample and serves every other."""
    model, batch = TinyMultimodal(), tiny_batch()
    sharing = [name for name in proxies.names() if proxies.get(name).needs >= {"labels", "data"}]
    assert {"zico", "fisher", "snip", "calibration-loss"} <= set(sharing)
    sharing += ["naswot", "near", "softmax-confidence", "meco"]
    alone = {name: proxies.get(name).score(model, batch) for name in sharing}
    with shared_passes(Reach.SAMPLES):
        assert {name: proxies.get(name).score(model, batch) for name in sharing} == pytest.approx(alone, rel=1e-4)


def test_shared_passes_forget_at_their_end() -> None:
    model, batch = TinyMultimodal(), tiny_batch()
    with shared_passes():
        before = proxies.get("snip").score(model, batch)
    with torch.no_grad():
        model.head.weight.mul_(2)
    assert proxies.get("snip").score(model, batch) != before


@pytest.mark.parametrize("name", ["synflow", "log-synflow", "grasp", "fisher", "az-trainability"])
def test_graphs_are_freed(name: str) -> None:
    """A hook that holds the tensor it hangs on is a cycle that no collector sees: 30 MB a model in real spaces."""
    alive: list[weakref.ref[torch.Tensor]] = []
    model, batch = TinyMultimodal(), tiny_batch()
    handle = model.head.register_forward_hook(lambda _m, given, _out: alive.append(weakref.ref(given[0])))
    proxies.get(name).score(model, batch)
    handle.remove()
    gc.collect()
    assert alive and not [one for one in alive if one() is not None]
