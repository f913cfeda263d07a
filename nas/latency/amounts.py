"""What one request of a workload makes of a candidate: pictures, sets of tokens, positions. No torch."""

from __future__ import annotations

from nas.cost_request import RequestTokens, request_tokens
from nas.cost_vision import layout, window
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder


def amounts(candidate: Candidate, workload: Workload) -> RequestTokens[int]:
    """In closed form."""
    heard, entering, dropped = grid_tokens(candidate)
    return request_tokens(workload, heard, layout(candidate), entering, dropped, int(candidate.crosses))


def grid_tokens(candidate: Candidate) -> tuple[int, int, int]:
    """(frames heard at once, tokens of a grid that enter the decoder, those of them that fastv drops)."""
    spec = encoder(candidate.encoder)
    entering = spec.tokens(candidate.resolution, candidate.entering_factor)
    left = spec.tokens(candidate.resolution, candidate.compression_factor)
    return window(spec, candidate.resolution), entering, entering - left if candidate.compression == "fastv" else 0
