"""Where things that are made once live: converted weights, encoder features, block timings."""

from __future__ import annotations

import os
from pathlib import Path

from nas.errors import StorageError


def cache_folder(*parts: str) -> Path:
    """A folder below the user's cache folder (or below NAS_CACHE), made if missing.

    Raises: StorageError where it cannot be written.
    """
    from platformdirs import user_cache_dir

    folder = Path(os.environ.get("NAS_CACHE") or user_cache_dir("nas")).joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot make the cache folder {folder}: {error}; set NAS_CACHE to a writable folder"
        ) from error
    return folder
