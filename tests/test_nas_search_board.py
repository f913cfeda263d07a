"""What the dashboard shows, and that looking at it harms no search."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stored_runs import designs, evaluation, stored_run, this_device

pytest.importorskip("optuna_dashboard")

from nas import report
from nas.errors import ConfigError
from nas.run_folder import RunFolder
from nas.search import board
from nas.search.archive import Archive

DEVICE = this_device()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    chosen = designs(4)
    runs = [evaluation(candidate, DEVICE, 1.0 + place) for place, candidate in enumerate(chosen)]
    return stored_run(tmp_path, runs, {chosen[0].key: 0.6}, {chosen[0].key: 1.0})


@pytest.fixture
def archive(folder: RunFolder) -> Archive:
    run = report.read(folder)
    archive = Archive(run.problem, folder.default_storage, folder.study)
    for item in run.evaluations:
        archive.add(item)
    return archive


@pytest.fixture
def address(folder: RunFolder, archive: Archive) -> Iterator[str]:
    with board.open_server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://{board.HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def get(url: str, **options: Any) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=30) as answer:
        return json.load(answer)


def test_publishing_again_replaces_note_figures_and_files(folder: RunFolder, archive: Archive) -> None:
    from optuna.artifacts import get_all_artifact_meta

    report.write(folder)
    board.publish(archive.study, folder)
    before = dict(archive.study._storage.get_study_system_attrs(archive.study._study_id))
    (folder.path / "report.md").write_text("newer", encoding="utf-8")
    board.publish(archive.study, folder)
    after = archive.study._storage.get_study_system_attrs(archive.study._study_id)
    assert set(after) == set(before)
    names = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(archive.study)}
    assert set(names) == set(board.ATTACHED)
    assert (folder.path / board.ARTIFACTS / names["report.md"]).read_text(encoding="utf-8") == "newer"


@pytest.mark.parametrize("planted", ["../victim", "/tmp/nas-victim", "link"])
def test_an_artifact_that_was_planted_in_the_store_leads_nowhere(
    planted: str, folder: RunFolder, archive: Archive
) -> None:
    victim, shelf = folder.path / "victim", folder.path / board.ARTIFACTS
    victim.write_text("mine", encoding="utf-8")
    shelf.mkdir()
    (shelf / "link").symlink_to(victim)
    meta = {"artifact_id": planted, "filename": "report.md", "mimetype": "text/markdown", "encoding": None}
    archive.storage.set_study_system_attr(archive.number, f"artifacts:{planted}", json.dumps(meta))
    (folder.path / "report.md").write_text("report", encoding="utf-8")
    board.publish(archive.study, folder)
    assert victim.read_text(encoding="utf-8") == "mine"
    assert not Path("/tmp/nas-victim").exists()
    assert any(file.read_text(encoding="utf-8") == "report" for file in shelf.iterdir())


def test_a_search_writes_on_while_its_dashboard_is_read(folder: RunFolder, archive: Archive, address: str) -> None:
    board.publish(archive.study, folder)
    for number, candidate in enumerate(designs(9)):
        item = evaluation(candidate, DEVICE, 2.0 + number)
        archive.problem.known_latency[item.key] = item.latency
        archive.add(item)
        study = get(f"{address}/api/studies/1?after=0")
    assert "feasible-front" in json.dumps(study["plotly_graph_objects"])
    assert "Front, best first" in study["note"]["body"]
    assert len(archive.study.get_trials()) == 4 + 9


def test_trials_carry_how_long_they_took(archive: Archive) -> None:
    assert archive.study.trials[0].duration is not None
    assert archive.study.trials[0].duration.total_seconds() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "options", [{"method": "DELETE"}, {"headers": {"Host": "evil.example"}}, {"headers": {"Host": "evil.example:80"}}]
)
def test_deleting_and_foreign_hosts_are_refused(address: str, archive: Archive, options: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{address}/api/studies/1", **options)
    refused.value.close()
    assert refused.value.code == 403
    assert len(archive.study.trials) == 4


def test_a_port_that_is_taken_is_one_line(folder: RunFolder, address: str) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(ConfigError, match="choose another --port"):
        board.open_server(folder, port)
