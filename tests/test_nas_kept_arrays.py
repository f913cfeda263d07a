"""Arrays kept on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from nas.kept_arrays import kept_array, version_of


def test_what_is_kept_is_not_computed_again(tmp_path: Path) -> None:
    calls = []

    def compute() -> torch.Tensor:
        calls.append(1)
        return torch.arange(6.0).reshape(2, 3)

    first, second = (kept_array(tmp_path / "one.npy", compute) for _ in range(2))
    assert torch.equal(first, second) and len(calls) == 1
    (tmp_path / "one.npy").write_bytes(b"no array")
    assert torch.equal(kept_array(tmp_path / "one.npy", compute), first) and len(calls) == 2
    assert not list(tmp_path.glob("*.partial*"))


def test_where_it_cannot_be_written_it_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nas.kept_arrays.np.save", full)
    assert torch.equal(kept_array(tmp_path / "one.npy", lambda: torch.ones(2)), torch.ones(2))
    assert not (tmp_path / "one.npy").exists()


def test_weights_of_a_folder_that_changes_are_others(tmp_path: Path) -> None:
    assert version_of("timm-dinov2") == "timm-dinov2"
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = version_of(str(tmp_path))
    assert before == version_of(str(tmp_path))
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))
    assert version_of(str(tmp_path)) != before
