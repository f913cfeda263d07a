"""RunFolder: runs/<study>/ and what lies where in it. Files are written beside and renamed."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nas.environment import environment
from nas.errors import ConfigError, RunError, StorageError
from search_spaces.reading import read_mapping

CONFIG, ENV, DATABASE = "config.resolved.yaml", "env.json", "study.db"
LATEST = "latest"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder."""

    path: Path

    @property
    def study(self) -> str:
        return self.path.name

    @property
    def config_file(self) -> Path:
        return self.path / CONFIG

    @property
    def default_storage(self) -> str:
        return f"sqlite:///{(self.path / DATABASE).resolve()}"

    @property
    def devices(self) -> list[str]:
        """Ids of the devices that the run is about."""
        return sorted(file.stem for file in (self.path / "devices").glob("*.yaml"))

    def finalist(self, key: str) -> Path:
        """The folder of a trained finalist."""
        return self.path / "finalists" / key

    def write(self, name: str, text: str) -> Path:
        """A file of the run, whole or not at all. Raises: StorageError."""
        file = self.path / name
        partial = file.with_name(f"{file.name}.partial")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.parent.resolve().is_relative_to(self.path.resolve()):
                raise StorageError(f"{name!r} leads out of {self.path}; nothing is written there")
            partial.unlink(missing_ok=True)  # it may be a link
            with partial.open("x", encoding="utf-8") as opened:
                opened.write(text)
            partial.replace(file)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise StorageError(f"cannot write {file}: {error.strerror}; free space or choose another --out") from error
        return file

    def note_environment(self) -> None:
        """Adds where the run goes on, if that differs from where it was begun; load apart. Raises: StorageError."""
        file = self.path / ENV
        stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else environment()
        last = (stored.get("later") or [stored])[-1]
        now = {name: value for name, value in environment().items() if name != "load_average"}
        changed = {name: value for name, value in now.items() if last.get(name) != value}
        if changed:
            self.write(ENV, json.dumps({**stored, "later": [*stored.get("later", []), now]}, indent=2))

    @contextmanager
    def trials(self) -> Iterator[bool]:
        """The body runs trials; gives whether a session before was killed, or crashed, while it ran some."""
        mark = self.path / ".trials"
        broke_off = mark.is_file()
        self.write(mark.name, "")
        try:
            yield broke_off
        finally:
            with suppress(OSError):
                mark.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The body is the only driver that writes here. Raises: RunError that names the other one, StorageError."""
        from filelock import FileLock, Timeout

        lock, owner = FileLock(self.path / ".lock"), self.path / ".owner"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            name = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
            raise RunError(f"{self.path} is being searched by {name}; wait for it or stop it") from None
        except OSError as error:
            raise StorageError(f"cannot lock {self.path}: {error.strerror}; a search writes there") from error
        try:
            self.write(owner.name, f"process {os.getpid()} on {platform.node()}")
            yield
        finally:
            lock.release()


def create(out: Path, study: str, files: Mapping[str, str] | None = None) -> RunFolder:
    """A new run's folder with these files, whole or not at all, and `latest` pointing at it.

    Raises: RunError, StorageError.
    """
    if not study or study != Path(study).name or study in {LATEST, ".", ".."}:
        raise RunError(f"--study must be a plain name other than 'latest', but got {study!r}")
    folder, partial = RunFolder(out / study), RunFolder(out / f".{study}.{os.getpid()}.partial")
    try:
        partial.path.mkdir(parents=True)
        for name, text in {ENV: json.dumps(environment(), indent=2), **(files or {})}.items():
            partial.write(name, text)
        partial.path.rename(folder.path)  # fails where a folder holds something
        link = out / f".{LATEST}.{os.getpid()}"
        link.symlink_to(study)
        link.replace(out / LATEST)
    except OSError as error:
        if folder.config_file.is_file():
            way = f"go on with: nas resume {folder.path}"
            raise RunError(f"{folder.path} exists already; choose another --study, or {way}") from None
        raise StorageError(
            f"cannot make the run folder {folder.path}: {error.strerror}; choose another --study or --out"
        ) from error
    finally:
        shutil.rmtree(partial.path, ignore_errors=True)
    return folder


def find(run: str, out: Path = Path("runs")) -> RunFolder:
    """A run by its folder, its study name, or `latest`. Raises: RunError."""
    for path in (out / run, Path(run)) if run == LATEST else (Path(run), out / run):
        if (path / CONFIG).is_file():
            return _named_as_its_study(RunFolder(path.resolve()))
    raise RunError(f"no run at {run!r}: {Path(run) / CONFIG} does not exist; runs are listed by: ls {out}")


def _named_as_its_study(folder: RunFolder) -> RunFolder:
    """Raises: RunError for a folder that was renamed; what the database holds is of the study."""
    study = read_mapping(folder.config_file, ConfigError).get("study")
    if study is not None and study != folder.study:
        raise RunError(f"{folder.path} holds study {study!r}; a run's folder has the name of its study: rename it back")
    return folder
