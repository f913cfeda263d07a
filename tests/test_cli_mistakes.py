"""A mistake is one line with rule, value and next step, exit code 2, before torch is loaded; nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzed_inputs import Input, run_one

import hardware_profiles

USAGE = [
    (["search", "--trials", "x"], "should be a valid integer", "but got 'x'; see `nas search --help`"),
    (["search", "--repeats", "1"], "greater than or equal to 2", "but got '1'; see `nas search --help`"),
    (["report", "--format", "xml"], "'xml' is not one of 'md', 'html', 'csv'", "see `nas report --help`"),
    (["search", "--spce", "micro"], "--spce", "see `nas search --help`"),
    (["spaces", "show"], "Missing argument 'S'", "see `nas spaces show --help`"),
    (["serach"], "Did you mean 'search'?", "see `nas --help`"),
]
DRY = ["search", "--dry-run", "--space", "micro", "--device", "raspberry-pi-5-8gb"]
PROFILE = str(Path(hardware_profiles.__file__).parent / "raspberry-pi-5-8gb.yaml")
VALUES = [
    ([*DRY, "--seed", "-1"], "seed: Input should be greater than or equal to 0", "(got -1)"),
    ([*DRY, "--seed", "5000000000"], "seed: Input should be less than or equal to 4294967295", "(got 5000000000)"),
    ([*DRY, "--objective", "quality", "--objective", "quality"], "objectives: 'quality' is given 2 times", "once"),
    ([*DRY, "--device", "raspberry-pi-5-8gb"], "devices: 'raspberry-pi-5-8gb' is given 2 times", "once"),
    ([*DRY, "--device", PROFILE], "device raspberry-pi-5-8gb is given twice", "give it once"),
]
FOLDER = str(Path(__file__).parent)
NAMES = [
    ([*DRY, "--objective", "qualty"], "nas: search: objectives must be metrics, but got 'qualty'; ", "'quality'?\n"),
    ([*DRY, "--objective", "latency_ms@"], "METRIC@DEVICE", "but got 'latency_ms@'\n"),
    ([*DRY, "--objective", "latency_ms@rpi"], "'@rpi' is no device of this search", "searched: raspberry-pi-5-8gb"),
    ([*DRY, "--constraint", "latency_ms@raspberry-pi <= 4"], "<= 4': '@raspberry-pi' is no", "'raspberry-pi-5-8gb'?"),
    ([*DRY, "--sampler", "ngsa2"], "'nsga2', 'nsga3', 'tpe', 'gp', 'random' or 'funnel' (got 'ngsa2')", "'nsga2'?"),
    ([*DRY, "--constraint", "latency_ms <= 50% of basline"], "constraint 'latency_ms <= 50% of", "'baseline'?"),
    ([*DRY, "--constraint", "params <= 50% of no.yaml"], "constraint 'params <= 50% of no.yaml': cannot", "check its"),
    (["search", "FIL.yaml"], "cannot read FIL.yaml: there is no such file in", "did you mean 'FILE.yaml'?"),
    (["search", "/none/at/all.yaml"], "there is no such file in /none/at; ", "check its name and folder"),
    (["search", FOLDER], f"cannot read {FOLDER}: Is a directory", "give a file that can be read"),
    ([*DRY[:-1], "no.yaml"], "cannot read no.yaml: there is no such file", "`nas devices detect --write no.yaml`"),
    (["search", "--replay", "no.csv", "--sampler", "tep"], "--replay has no sampler 'tep'", "did you mean 'tpe'?"),
    (["search", "--replay", "no.csv"], "cannot read no.csv: there is no such file in", "check its name and folder"),
]
REPLAYS = [
    (["search", "--replay", "t.csv", "--seed", "-3"], "seeds must be in 0..4294967295, but got -3 to 16", "--seed"),
    (["search", "--replay", "t.csv", "--seed", "4294967290"], "but got 4294967290 to 4294967309", "--repeats"),
]
MISPLACED = [
    ([*DRY, "--axis", "depth"], "--axis is of --replay TABLE only", "give the table, or leave it out"),
    ([*DRY, "--repeats", "3"], "--repeats is of --replay TABLE only", "give the table, or leave it out"),
    (["search", "--replay", "t.csv", "--dry-run", "--resume"], "--replay builds nothing", "read resume, dry-run"),
    (["search", "--replay", "t.csv", "--space", "micro", "--from", "x"], "--replay builds", "read space, start_from"),
]
MISTAKES = [*MISPLACED, *USAGE, *VALUES, *NAMES, *REPLAYS]


@pytest.mark.parametrize(("arguments", "rule", "next_step"), MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], rule: str, next_step: str) -> None:
    outcome = run_one(Input(tuple(arguments)))
    assert (outcome.code, outcome.trace) == (2, "")
    assert outcome.said.startswith("nas: ") and outcome.said.count("\n") == 1
    assert rule in outcome.said and next_step in outcome.said
    assert outcome.left == ()


def test_no_mistake_waits_for_torch_or_optuna(tmp_path: Path) -> None:
    program = f"""
import sys
from cli.main import main
for arguments in {json.dumps([arguments for arguments, *_ in MISTAKES])}:
    sys.argv = ["nas", *arguments]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, arguments
    assert not {{"torch", "optuna"}} & set(sys.modules), arguments
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_group_without_a_command_prints_its_help() -> None:
    outcome = run_one(Input(("spaces",)))
    assert outcome.code == 2
    assert "Usage: nas spaces" in outcome.said and "nas: " not in outcome.said
