"""A mistake is one line with rule, value and next step, exit code 2, before torch is imported; nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzed_inputs import Input, run_one

USAGE = [
    (["search", "--trials", "x"], "should be a valid integer", "but got 'x'; see `nas search --help`"),
    (["search", "--repeats", "1"], "greater than or equal to 2", "but got '1'; see `nas search --help`"),
    (["report", "--format", "xml"], "'xml' is not one of 'md', 'html', 'csv'", "see `nas report --help`"),
    (["search", "--spce", "micro"], "--spce", "see `nas search --help`"),
    (["spaces", "show"], "Missing argument 'S'", "see `nas spaces show --help`"),
    (["serach"], "Did you mean 'search'?", "see `nas --help`"),
]
DRY = ["search", "--dry-run", "--space", "micro", "--device", "raspberry-pi-5-8gb"]
VALUES = [
    ([*DRY, "--seed", "-1"], "seed: Input should be greater than or equal to 0", "(got -1)"),
    ([*DRY, "--seed", "5000000000"], "seed: Input should be less than or equal to 4294967295", "(got 5000000000)"),
    ([*DRY, "--objective", "quality", "--objective", "quality"], "objectives: 'quality' is given 2 times", "once"),
    ([*DRY, "--device", "raspberry-pi-5-8gb"], "devices: 'raspberry-pi-5-8gb' is given 2 times", "once"),
]
REPLAYS = [
    (["search", "--replay", "t.csv", "--seed", "-3"], "seeds must be in 0..4294967295, but got -3 to 16", "--seed"),
    (["search", "--replay", "t.csv", "--seed", "4294967290"], "but got 4294967290 to 4294967309", "--repeats"),
]
MISTAKES = [*USAGE, *VALUES, *REPLAYS]


@pytest.mark.parametrize(("arguments", "rule", "next_step"), MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], rule: str, next_step: str) -> None:
    outcome = run_one(Input(tuple(arguments)))
    assert (outcome.code, outcome.trace) == (2, "")
    assert outcome.said.startswith("nas: ") and outcome.said.count("\n") == 1
    assert rule in outcome.said and next_step in outcome.said
    assert outcome.left == ()


def test_no_mistake_waits_for_torch(tmp_path: Path) -> None:
    program = f"""
import sys
from cli.main import main
for arguments in {json.dumps([arguments for arguments, *_ in MISTAKES])}:
    sys.argv = ["nas", *arguments]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, arguments
    assert "torch" not in sys.modules, arguments
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
