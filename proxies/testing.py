"""ProxyContract: what every proxy must keep, as a test class to inherit; and a tiny model to keep it on.

    class TestMyProxy(ProxyContract):
        name = "my-proxy"

Tests need nothing but torch; `model` and `batch` may be overridden to check a proxy on another family.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from proxies.batch import IGNORED, ProbeBatch, random_batch
from proxies.registry import Proxy, get

IMAGE_TOKEN, VOCABULARY = 3, 32


@dataclass
class TinyOutput:
    """Loss of the labels, if any, and logits (B, T, V)."""

    loss: Tensor | None
    logits: Tensor


class TinyBlock(nn.Module):
    """Pre-norm attention and MLP: (B, T, H) -> (B, T, H)."""

    def __init__(self, hidden: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.RMSNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 2 * hidden), nn.Linear(2 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        fed: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + fed


class TinyMultimodal(nn.Module):
    """Patches of 4 x 4 pixels, a linear projector and a causal decoder: the smallest thing proxies can score."""

    def __init__(self, *, hidden: int = 16, depth: int = 2, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.patches = nn.Conv2d(3, 8, 4, stride=4)
            self.vision = TinyBlock(8, 2, causal=False)
            self.projector = nn.Linear(8, hidden)
            self.embedding = nn.Embedding(VOCABULARY, hidden)
            self.blocks = nn.ModuleList(TinyBlock(hidden, 2, causal=True) for _ in range(depth))
            self.dropout = nn.Dropout(0.5)  # isolation must put the model into evaluation mode
            self.norm = nn.LayerNorm(hidden)
            self.head = nn.Linear(hidden, VOCABULARY, bias=False)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def vision_tokens(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, N, D)."""
        tokens: Tensor = self.vision(self.patches(pixel_values).flatten(2).transpose(1, 2))
        return tokens

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, M, H), N = M."""
        projected: Tensor = self.projector(tokens)
        return projected

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, M, H)."""
        return self.project_tokens(self.vision_tokens(pixel_values))

    def forward(
        self,
        *,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        vision_features: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> TinyOutput:
        """The form of `ScorableModel`."""
        if inputs_embeds is None:
            assert input_ids is not None
            if vision_features is None:
                assert pixel_values is not None
                vision_features = self.vision_tokens(pixel_values)
            places = (input_ids == IMAGE_TOKEN).unsqueeze(-1)
            inputs_embeds = self.embedding(input_ids).masked_scatter(places, self.project_tokens(vision_features))
        x = inputs_embeds
        for block in self.blocks:
            x = self.dropout(block(x))
        logits: Tensor = self.head(self.norm(x[:, -logits_to_keep:]))
        if labels is None:
            return TinyOutput(None, logits)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        return TinyOutput(loss, logits)


def tiny_batch(size: int = 4, seed: int = 0) -> ProbeBatch:
    """Eight-pixel images of four visual tokens each; rows ask for three labels or for two.

    So that the mean over parts of the batch is not the mean over the batch.
    """
    batch = random_batch(
        resolution=8, visual_tokens=4, image_token_id=IMAGE_TOKEN, vocab=VOCABULARY, text_tokens=6, size=size, seed=seed
    )
    labels = batch.labels.clone()
    labels[1::2, -2] = IGNORED
    return replace(batch, labels=labels)


class ProxyContract:
    """Inherit, set `name`, and pytest runs the contract."""

    name: str

    def proxy(self) -> Proxy:
        return get(self.name)

    def model(self) -> nn.Module:
        return TinyMultimodal()

    def batch(self, size: int = 4) -> ProbeBatch:
        return tiny_batch(size)

    def test_proxy_states_where_it_comes_from(self) -> None:
        proxy = self.proxy()
        assert proxy.name == self.name
        assert proxy.paper and proxy.equation and proxy.families
        assert proxy.needs <= {"grad", "samples", "labels", "data", "weights"}

    def test_same_value_whatever_was_drawn_before(self) -> None:
        first = self.proxy().score(self.model(), self.batch())
        torch.manual_seed(12345)
        assert self.proxy().score(self.model(), self.batch()) == first

    def test_scoring_twice_changes_nothing(self) -> None:
        model = self.model()
        assert self.proxy().score(model, self.batch()) == self.proxy().score(model, self.batch())

    def test_splits_do_not_change_the_value(self) -> None:
        model, batch = self.model(), self.batch()
        whole = self.proxy().score(model, batch, splits=1)
        for splits in (2, 4):
            part = self.proxy().score(model, batch, splits=splits)
            assert abs(part - whole) <= 1e-5 * max(abs(whole), 1e-6), (splits, part, whole)

    def test_works_at_batch_one(self) -> None:
        assert isinstance(self.proxy().score(self.model(), self.batch(1)), float)

    def test_model_is_left_as_found(self) -> None:
        model = self.model().train()
        parameters = list(model.parameters())
        parameters[0].requires_grad_(False)
        parameters[-1].grad = torch.ones_like(parameters[-1])
        before = self._state(model)
        self.proxy().score(model, self.batch())
        after = self._state(model)
        assert all(torch.equal(a, b) for a, b in zip(before.pop("tensors"), after.pop("tensors"), strict=True))
        for old, new in zip(before.pop("grads"), after.pop("grads"), strict=True):
            assert (old is None) == (new is None)
            assert old is None or torch.equal(old, new)
        assert before == after

    @staticmethod
    def _state(model: nn.Module) -> dict[str, Any]:
        return {
            "tensors": [*(tensor.clone() for tensor in model.state_dict().values()), torch.get_rng_state()],
            "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
            "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
            "modes": [module.training for module in model.modules()],
            "python_state": random.getstate(),
        }
