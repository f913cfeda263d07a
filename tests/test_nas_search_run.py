"""A search is the same each time, goes on as it would have after a stop, and hears Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import hardware_profiles
from nas import run_folder
from nas.config import SearchConfig
from nas.records import Evaluation
from nas.run_folder import RunFolder
from nas.search.run import Listener, run
from nas.store import Store

DEVICE = "raspberry-pi-5-8gb"  # latency by its datasheet: the same each time
TRIALS = 15  # the sampler draws at random for the first 12
CONFIG = SearchConfig(
    space="micro", devices=[DEVICE], sampler="tpe", trials=TRIALS, finalists=0, seed=3, proxies=["params"]
)


def made(out: Path, config: SearchConfig = CONFIG) -> RunFolder:
    folder = run_folder.create(out, "study")
    folder.write(run_folder.CONFIG, yaml.safe_dump(config.model_dump(mode="json")))
    folder.write(f"devices/{DEVICE}.yaml", hardware_profiles.dump(hardware_profiles.load(DEVICE)))
    return folder


def found(folder: RunFolder) -> list[Evaluation]:
    """What is stored, without how long it took."""
    store = Store(folder.default_storage)
    try:
        items = store.evaluations(folder.study)
    finally:
        store.close()
    return [
        replace(item, wall_s=0, proxies={name: replace(one, seconds=0) for name, one in item.proxies.items()})
        for item in items
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Evaluation]:
    folder = made(tmp_path_factory.mktemp("undisturbed"))
    run(CONFIG, folder, Listener())
    return found(folder)


def at(trial: int, act: Callable[[], None]) -> Listener:
    """Acts once that trial is stored."""
    return Listener(trial=lambda evaluation, done, of: act() if done == trial else None)


def stop() -> None:
    raise RuntimeError("stopped in the middle")


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_search_that_is_stopped_twice_ends_like_one_that_was_not(
    tmp_path: Path, undisturbed: list[Evaluation]
) -> None:
    folder = made(tmp_path)
    for trial in (4, 13):
        with pytest.raises(RuntimeError, match="stopped"):
            run(CONFIG, folder, at(trial, stop))
    run(CONFIG, folder, Listener())
    assert found(folder) == undisturbed
    assert len({item.key for item in undisturbed}) == TRIALS


def test_ctrl_c_ends_after_the_trial_under_way_and_the_report_is_there(tmp_path: Path) -> None:
    folder, said = made(tmp_path), []
    listener = at(3, press_ctrl_c)
    listener.say = said.append
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, folder, listener)
    assert len(found(folder)) == 3
    assert (folder.path / "report.html").is_file()
    assert any("Ctrl-C again" in line for line in said)


def test_a_second_ctrl_c_stops_at_once_and_loses_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path)

    def press_twice() -> None:
        press_ctrl_c()
        press_ctrl_c()
        pytest.fail("still going")

    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, folder, at(2, press_twice))
    assert len(found(folder)) == 2


def test_candidates_that_fail_are_kept_with_their_trace_and_the_search_goes_on(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"trial_timeout_s": 1e-4, "trials": 4})
    folder = made(tmp_path, config)
    run(config, folder, Listener())
    assert [item.status for item in found(folder)] == ["failed"] * 4
    assert all("TimeoutError" in str(item.error) and "Traceback" in str(item.traceback) for item in found(folder))
