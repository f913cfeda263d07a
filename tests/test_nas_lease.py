"""One driver a study, also from another folder or machine, and after one that was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.errors import RunError
from nas.lease import SILENT_BEATS, is_dead, lease, owner_here
from nas.run_folder import RunFolder
from nas.store import Driver, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(f"sqlite:///{tmp_path / 'study.db'}")
    yield found
    found.close()


def elsewhere(folder: str) -> dict[str, object]:
    """A driver on another machine, of whose processes nothing is known here."""
    return {"pid": 7, "started": 1.0, "host": "far", "namespace": "another machine", "folder": folder}


def test_a_second_driver_is_refused_with_the_first_one_s_name(store: Store, tmp_path: Path) -> None:
    """A living process on this machine beats for itself; here every pause is one of its beats."""
    with lease(store, "study", tmp_path / "one"):
        held = store.token
        assert held is not None
        refusal = rf"process {os.getpid()} on .*one\); wait for it or stop it"
        with (
            pytest.raises(RunError, match=refusal),
            lease(store, "study", tmp_path / "two", lambda s: beats(store, held)),
        ):
            pytest.fail("two drivers at once")
        with lease(store, "another", tmp_path / "two"):
            assert store.driver("another") is not None
            store.token = held
    assert store.driver("study") is None


def beats(store: Store, token: str) -> None:
    assert store.beat("study", token)


def test_a_driver_elsewhere_that_is_silent_is_succeeded(store: Store, tmp_path: Path) -> None:
    paused: list[float] = []
    assert store.claim("study", Driver("other", elsewhere("/runs")), instead_of=None)
    with lease(store, "study", tmp_path, paused.append):
        found = store.driver("study")
        assert found is not None and found.owner["pid"] == os.getpid()
    assert len(paused) == SILENT_BEATS


def test_a_driver_elsewhere_that_still_beats_is_not(store: Store, tmp_path: Path) -> None:
    assert store.claim("study", Driver("other", elsewhere("/runs")), instead_of=None)
    with pytest.raises(RunError, match=r"process 7 on far \(/runs\)"), lease(
        store, "study", tmp_path, lambda seconds: beats(store, "other")
    ):  # fmt: skip
        pytest.fail("two drivers at once")


def test_a_dead_driver_of_this_machine_is_succeeded_at_once(store: Store, tmp_path: Path) -> None:
    """Its number has been given to another process since."""
    dead = {**owner_here(tmp_path), "started": -1.0}
    assert is_dead(dead) and not is_dead(owner_here(tmp_path))
    assert store.claim("study", Driver("dead", dead), instead_of=None)
    with lease(store, "study", tmp_path, lambda seconds: pytest.fail("nothing to wait for")):
        assert store.token != "dead"


def test_a_folder_that_is_searched_names_its_searcher(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(RunError, match=f"process {os.getpid()} on"), folder.locked():
        pytest.fail("two drivers at once")
    with folder.locked():
        assert (tmp_path / ".owner").is_file()
