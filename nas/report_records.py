"""The records of a run as its reports open them: those that a search left. Nothing is made where there are none."""

from __future__ import annotations

from pathlib import Path

from nas.errors import RunError
from nas.run_folder import RunFolder
from nas.store import Store

SQLITE = "sqlite:///"


def records(folder: RunFolder, storage: str | None) -> Store:
    """The store of a run. Raises: RunError where its file is missing, StorageError."""
    url = storage or folder.default_storage
    file = Path(url.removeprefix(SQLITE).partition("?")[0])
    if url.startswith(SQLITE) and not file.is_file():
        raise RunError(
            f"a report reads what a search stored, but {file} does not exist; put it back, or begin again with: "
            f"nas resume {folder.path}"
        )
    return Store(url)


def profiles(folder: RunFolder) -> Path:
    """Where the profiles of the run's devices are. Raises: RunError where there is none."""
    if not folder.devices:
        raise RunError(
            f"a run folder must hold the profiles of its devices, but {folder.path / 'devices'} has none; put them "
            f"back, or search again with: nas search {folder.config_file} --study NAME"
        )
    return folder.path / "devices"
