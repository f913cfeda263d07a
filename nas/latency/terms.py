"""A candidate's latency as weighted sums of blocks: which blocks it consists of, and how much of each. No torch.

What may vary freely is a weight, never a new measurement: depth of encoder and decoder, length of prompt and cache,
pictures and sets of tokens (a batch), and what FastV drops. What changes a module is in its block's key.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas.cost_connector import IN_ENCODER, PRUNES_BY_ATTENTION
from nas.cost_request import RequestTokens
from nas.cost_vision import second_encoder, token_width
from nas.errors import NotMeasuredError
from nas.latency.amounts import amounts
from nas.latency.blocks import BlockSpec, Terms, changed_axes, merged
from nas.latency.decoder_terms import decode_terms, prefill_terms
from nas.workload import Workload
from search_spaces import Candidate
from search_spaces.catalogue import encoder

# What runs through hooks and kernels of torch's own, which other runtimes do not trace.
EAGER_ONLY = ("second_encoder", "temporal_factor", "prune_layer", "lm_experts", "lm_weights", "kv_cache", "attention")


def needed(candidate: Candidate, workload: Workload, runtime: str = "torch-eager") -> list[BlockSpec]:
    """The blocks that `compose` reads for this candidate. Raises: NotMeasuredError where it has parts without any."""
    every = terms(candidate, workload, runtime).values()
    return list(dict.fromkeys(block for part in every for _, block in part))


def has_blocks(candidate: Candidate, workload: Workload, runtime: str = "torch-eager") -> bool:
    """Whether a latency can be composed at all; designs of which none can are left out like unmeasured ones."""
    try:
        terms(candidate, workload, runtime)
    except NotMeasuredError:
        return False
    return True


def terms(candidate: Candidate, workload: Workload, runtime: str = "torch-eager") -> Mapping[str, Terms]:
    """By part of a request: (weight, block). Raises: NotMeasuredError."""
    check_runs(candidate, workload, runtime)
    found = amounts(candidate, workload)
    return {
        **seen_terms(candidate, workload, found),
        "prefill_ms": prefill_terms(candidate, workload, found, runtime),
        "tpot_ms": decode_terms(candidate, workload, found, runtime),
    }


def check_runs(candidate: Candidate, workload: Workload, runtime: str) -> None:
    """Raises: NotMeasuredError where this candidate has no requests of this workload in this runtime."""
    if workload.turns > 1 and (candidate.crosses or candidate.prune_layer):
        raise NotMeasuredError(
            f"a context of several turns must be read in one way, but {candidate} drops its visual tokens or reads "
            f"them beside the sequence; {workload.name} has {workload.turns} turns: take a workload of one turn"
        )
    if runtime == "torch-eager":
        return
    changed = [name for name, _ in changed_axes(candidate, *EAGER_ONLY)]
    if candidate.compression in IN_ENCODER:
        changed.append("compression")
    if candidate.tiling == "s2":
        changed.append("tiling")
    if candidate.crosses:
        changed.append("projector")
    if changed:
        raise NotMeasuredError(
            f"runtime {runtime} does not run what {candidate} changes ({', '.join(changed)}); take torch-eager"
        )


def seen_terms(candidate: Candidate, workload: Workload, found: RequestTokens[int]) -> dict[str, Terms]:
    """What comes before the language model."""
    batch = workload.batch
    return {
        "preprocess_ms": [(1.0, preprocess_block(candidate, batch * found.photos))],
        "vision_ms": vision_terms(candidate, batch * found.pictures),
        "projector_ms": [(1.0, projector_block(candidate, batch * found.grids, workload.frames))],
    }


def preprocess_block(candidate: Candidate, batch: int) -> BlockSpec:
    """Of `batch` photos, cut into tiles where the candidate has some; or the spectrograms of so many windows."""
    mels = encoder(candidate.encoder).mels
    axes = (("mels", mels),) if mels else changed_axes(candidate, "tiling", "tiles")
    return BlockSpec("preprocess", batch, resolution=candidate.resolution, axes=axes)


def vision_terms(candidate: Candidate, pictures: int) -> Terms:
    """Encoders, each alone; how their tokens join, or how its own attention prunes them."""
    if candidate.compression == "tome-blocks":
        return [(1.0, _merging_encoder(candidate, pictures))]
    found = _encoder_terms(candidate.encoder, candidate.resolution, pictures, candidate.encoder_depth)
    if second_encoder(candidate) is not None:
        found += _encoder_terms(candidate.second_encoder, candidate.resolution, pictures)
    joined = changed_axes(candidate, "second_encoder", "fusion")
    joined += changed_axes(candidate, "tiling", "tiles") if candidate.tiling == "s2" else ()
    if joined:
        found.append((1.0, BlockSpec("join", pictures, candidate.encoder, candidate.resolution, axes=joined)))
    if candidate.compression in PRUNES_BY_ATTENTION:
        pruned = BlockSpec(
            "prune", pictures, candidate.encoder, candidate.resolution, compression=candidate.compression,
            compression_factor=candidate.compression_factor,
        )  # fmt: skip
        found.append((1.0, pruned))
    return found


def _merging_encoder(candidate: Candidate, pictures: int) -> BlockSpec:
    """Every depth and factor merges along a course of its own."""
    return BlockSpec(
        "vision", pictures, candidate.encoder, candidate.resolution, compression=candidate.compression,
        compression_factor=candidate.compression_factor, axes=changed_axes(candidate, "encoder_depth"),
    )  # fmt: skip


def _encoder_terms(name: str, resolution: int, pictures: int, depth: int = 0) -> Terms:
    """Cut after a block: on the line through the whole encoder and a third of its blocks."""
    whole = BlockSpec("vision", pictures, encoder=name, resolution=resolution)
    deepest = encoder(name).blocks()
    if not depth:
        return [(1.0, whole)]
    shallow = max(1, deepest // 3)
    cut = BlockSpec("vision", pictures, encoder=name, resolution=resolution, axes=(("encoder_depth", shallow),))
    share = (depth - shallow) / (deepest - shallow)
    return merged([(share, whole), (1 - share, cut)])


def projector_block(candidate: Candidate, batch: int, frames: int = 1) -> BlockSpec:
    """Of `batch` sets of tokens. What prunes before or after it leaves fewer tokens for it, or all."""
    spec, together = encoder(candidate.encoder), min(frames, candidate.temporal_factor)
    width = token_width(candidate, spec, second_encoder(candidate))
    compression, factor = candidate.compression, candidate.compression_factor
    if compression == "fastv":
        compression, factor = "none", 1
    elif compression in IN_ENCODER:
        compression = "pruned"
    return BlockSpec(
        "projector", batch, candidate.encoder, candidate.resolution, candidate.projector, compression, factor,
        candidate.lm, width=0 if width == spec.width else width,
        axes=(("temporal_factor", together),) if together > 1 else (),
    )  # fmt: skip
