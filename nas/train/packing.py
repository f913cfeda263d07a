"""Several questions about one image in one sequence: its visual tokens are computed once.

    start, M image tokens | question end answer end | question end answer end | ...

Each question sees the image and itself, never another question, and its positions start right after the image:
hidden states equal those of one sequence a question (a test checks it), at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from nas.model import MultimodalLM, Processor
from nas.train.features import Clips


@dataclass(frozen=True, slots=True)
class Pack:
    """One image and the token ids of the texts about it; `image` is an index into the cached features."""

    image: int
    texts: list[list[int]]


def question_ids(processor: Processor, question: str) -> list[int]:
    """A question's ids without the image prefix that its pack shares."""
    return processor.prompt(question)[1 + processor.visual_tokens :]


def hidden_states(
    model: MultimodalLM, processor: Processor, packs: Sequence[Pack], features: Tensor | Clips
) -> list[Tensor]:
    """Last hidden states (length, H) of every text, packs after packs in order.

    `features`: (images, N, D), or the pixels (images, 3, R, R) themselves where the encoder trains; or clips of sound.
    """
    if model.is_recurrent:  # a state takes in whatever comes before: no mask can part two texts
        packs = [Pack(pack.image, [text]) for pack in packs for text in pack.texts]
    places = [pack.image for pack in packs]
    seen, sets = features.of(places) if isinstance(features, Clips) else (features[places], [1] * len(packs))
    if model.candidate.crosses and len(set(sets)) > 1:  # every text of a call reads equally many windows
        return [state for pack in packs for state in hidden_states(model, processor, [pack], features)]
    prefixes = [1 + processor.visual_tokens * count for count in sets]
    longest = max(prefix + sum(map(len, pack.texts)) for prefix, pack in zip(prefixes, packs, strict=True))
    ids = torch.full((len(packs), longest), processor.end_id)
    positions = torch.zeros(len(packs), longest, dtype=torch.long)
    owner = torch.full((len(packs), longest), -1)  # which text a token is of; 0 = the image, -1 = padding
    spans = []
    for row, (prefix, pack) in enumerate(zip(prefixes, packs, strict=True)):
        ids[row, :prefix], owner[row, :prefix] = processor.image_token_id, 0
        ids[row, 0] = processor.start_id
        positions[row, :prefix] = torch.arange(prefix)
        start = prefix
        for number, text in enumerate(pack.texts, 1):
            end = start + len(text)
            ids[row, start:end] = torch.tensor(text)
            owner[row, start:end] = number
            positions[row, start:end] = torch.arange(prefix, prefix + len(text))
            spans.append((row, start, end))
            start = end
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16_is_fast()):
        seen = seen.float()
        visual = (model.project_tokens(seen) if seen.ndim == 3 else model.encode_images(seen)).float()
        apart = {} if model.is_recurrent else {"attention_mask": _mask(owner), "position_ids": positions}
        with model.seeing(visual):
            states: Tensor = model.decoder(
                inputs_embeds=model.embed(ids, visual), use_cache=False, **apart
            ).last_hidden_state
    return [states[row, start:end] for row, start, end in spans]


@cache
def bfloat16_is_fast() -> bool:
    """Whether oneDNN multiplies it on this processor; without (AVX2) torch takes 70 times as long as in float32."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _mask(owner: Tensor) -> Tensor:
    """(B, 1, T, T), true where a token may look: back, at the image and at its own text."""
    length = owner.shape[1]
    back = torch.ones(length, length, dtype=torch.bool).tril()
    reader, read = owner.unsqueeze(2), owner.unsqueeze(1)
    return (((read == 0) | (read == reader)) & back).unsqueeze(1)
