"""compression-gw: how far the geometry of tokens moves by compression and projection."""

from __future__ import annotations

from torch import nn

from proxies.batch import ProbeBatch
from proxies.pairs import distances
from proxies.probing import before_and_after
from proxies.registry import proxy

MOST_TOKENS = 64


@proxy(
    name="compression-gw",
    paper="this project's hypothesis on token compression; Gromov-Wasserstein distance of Memoli 2011, "
    "definition 5.7, computed with POT",
    equation="mean over samples of GW(distances among the N encoder tokens, distances among the M tokens that "
    "enter the LM), each over their largest",
    higher_is_better=False,
    needs=frozenset({"data", "weights"}),
    families="multimodal models whose encoder hands out its tokens",
)
def compression_gw(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """At most 64 tokens of a side, evenly spaced; needs no pairing of tokens. A local minimum."""
    from ot.gromov import gromov_wasserstein2  # its import takes a second

    before, after = before_and_after(model, batch, splits)
    total = 0.0
    for a, b in zip(before, after, strict=True):
        sides = [distances(rows[:: -(-len(rows) // MOST_TOKENS)]).numpy() for rows in (a, b)]
        total += float(gromov_wasserstein2(*sides, loss_fun="square_loss"))
    return total / len(batch)
