"""What one request of a workload makes of a design, in pictures and tokens; of one design, or of many as columns."""

from __future__ import annotations

from typing import Generic, NamedTuple

from nas.cost_language import Count
from nas.cost_vision import FRAMES_PER_S, Layout
from nas.workload import Workload


class RequestTokens(NamedTuple, Generic[Count]):
    """Of each request of a batch."""

    photos: Count  # images, or their frames, or windows of sound
    pictures: Count  # that each encoder sees
    grids: Count  # sets of tokens that pass through compression and projector
    visual: Count  # tokens that come out
    dropped: Count  # of them, by fastv
    prompt: Count  # positions that a prefill computes
    past: Count  # positions that are in the cache before
    context: Count  # mean positions that a decode step attends to


def request_tokens(
    workload: Workload, window: Count, seen: Layout[Count], tokens: Count, dropped: Count, crosses: Count
) -> RequestTokens[Count]:
    """`tokens` come of one grid, and fastv drops `dropped` of them; with `crosses` they take no place in the prompt.

    `window`: frames of sound that the encoder hears at once, 0 where it sees pictures.
    """
    frames = _frames(workload, window)
    grids = workload.images * -(-frames // seen.merged) * seen.grids
    visual = grids * tokens
    prompt = visual * (1 - crosses) + workload.prompt_tokens
    past = (workload.turns - 1) * (prompt + workload.new_tokens)
    return RequestTokens(
        photos=workload.images * frames,
        pictures=workload.images * frames * seen.pictures,
        grids=grids,
        visual=visual,
        dropped=grids * dropped,
        prompt=prompt,
        past=past,
        context=past + prompt + max(1, workload.new_tokens // 2),
    )


def _frames(workload: Workload, window: Count) -> Count:
    """Pictures of one image of the workload; of a clip of sound its windows, the last of which ends in silence."""
    hears = 1 * (window > 0)
    windows = -(-max(1, FRAMES_PER_S * workload.seconds) // (window + 1 - hears))
    frames: Count = hears * windows + (1 - hears) * workload.frames
    return frames
