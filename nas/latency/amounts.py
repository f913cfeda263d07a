"""What one request of a workload makes of a candidate: pictures, sets of tokens, positions. No torch."""

from __future__ import annotations

from nas.cost_request import RequestTokens, request_tokens
from nas.cost_vision import layout, window
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder


def amounts(candidate: Candidate, workload: Workload) -> RequestTokens[int]:
    """In closed form."""
    spec = encoder(candidate.encoder)
    tokens = spec.tokens(candidate.resolution, candidate.entering_factor)
    left = spec.tokens(candidate.resolution, candidate.compression_factor)
    dropped = tokens - left if candidate.compression == "fastv" else 0
    heard, crosses = window(spec, candidate.resolution), int(candidate.crosses)
    return request_tokens(workload, heard, layout(candidate), tokens, dropped, crosses)
