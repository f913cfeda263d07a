"""Arrays that are computed once for all processes and runs of a user, as files of the cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def kept_array(file: Path, compute: Callable[[], Tensor]) -> Tensor:
    """What `file` holds, else what is computed; others wait for it. Where it cannot be written it is not kept."""
    from filelock import FileLock

    with FileLock(f"{file}.lock"):
        kept = read_kept(file)
        if kept is None:
            kept = compute().contiguous()  # as it is read, so that all sum in one order
            partial = file.with_suffix(".partial.npy")
            with suppress(OSError):
                np.save(partial, kept.numpy())
                partial.replace(file)
            partial.unlink(missing_ok=True)
    return kept


def read_kept(file: Path) -> Tensor | None:
    """None where there is none, or no array of numbers; what is not looked at is not read."""
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False, mmap_mode="c"))
    except (OSError, ValueError, TypeError):
        return None


def version_of(weights: str) -> str:
    """The name of weights; of those of a user's folder with what tells its state from a later one."""
    folder = Path(weights)
    if not folder.is_dir():
        return weights
    states = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
    return "folder-" + hashlib.sha256(repr((weights, states)).encode()).hexdigest()[:12]
