"""What one request of a workload makes of a candidate: pictures, sets of tokens, positions. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from nas.cost_request import request_tokens
from nas.cost_vision import layout, window
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder


@dataclass(frozen=True, slots=True)
class Amounts:
    """What one request of a workload makes of a candidate, each of the `batch` requests alike."""

    photos: int  # images, or their frames, or windows of sound
    pictures: int  # that each encoder sees
    grids: int  # sets of tokens that pass through compression and projector
    visual: int  # tokens that come out
    dropped: int  # of them, by fastv
    prompt: int  # positions that a prefill computes
    past: int  # positions that are in the cache before
    context: int  # mean positions that a decode step attends to


def amounts(candidate: Candidate, workload: Workload) -> Amounts:
    """In closed form."""
    spec = encoder(candidate.encoder)
    tokens = spec.tokens(candidate.resolution, candidate.entering_factor)
    left = spec.tokens(candidate.resolution, candidate.compression_factor)
    dropped = tokens - left if candidate.compression == "fastv" else 0
    heard, crosses = window(spec, candidate.resolution), int(candidate.crosses)
    found = request_tokens(workload, heard, layout(candidate), tokens, dropped, crosses)
    return Amounts(
        context=found.past + found.prompt + max(1, workload.new_tokens // 2),
        **found._asdict(),
    )
