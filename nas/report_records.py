"""The records of a run as its reports open them: those that a search left. Nothing is made where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.errors import RunError
from nas.records import Evaluation
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


def profiles(folder: RunFolder, evaluations: Sequence[Evaluation]) -> Path:
    """Where the profiles of the run's devices are. Raises: RunError where one is missing."""
    lost = {device for one in evaluations for device in one.latency} - set(folder.devices)
    if lost or not folder.devices:
        raise RunError(
            f"a run folder must hold the profiles of its devices, but {folder.path / 'devices'} lacks "
            f"{', '.join(sorted(lost)) or 'them'}; put back what is missing, or search again with: "
            f"nas search {folder.config_file} --study NAME"
        )
    return folder.path / "devices"
