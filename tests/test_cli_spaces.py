"""`nas spaces` prints what a space holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import hardware_profiles
import nas.workload
import search_spaces
from cli.spaces import app
from nas.cost import cost
from nas.errors import ConfigError
from nas.latency.blocks import BlockTiming
from nas.latency.context import context_here
from nas.latency.terms import needed
from nas.store import Store

MICRO = search_spaces.load("micro")
WORKLOAD = nas.workload.load("vqa-short")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def printed(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def own(folder: Path, **changes: Any) -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(MICRO.model_dump(mode="json") | changes))
    return str(path)


def test_list_names_every_shipped_space_and_its_size() -> None:
    assert {entry["name"]: entry["candidates"] for entry in printed("list")} == {
        name: search_spaces.load(name).size for name in search_spaces.names()
    }
    assert "pocket" in run("list")


def test_show_prints_axes_rules_and_baseline() -> None:
    text = run("show", "pocket")
    for words in ("dinov2-vits14", "merged blocks tile the grid", "40% of baseline", "3,195"):
        assert words in text
    assert printed("show", "pocket")["candidates"] == search_spaces.load("pocket").size


def test_validate_accepts_a_space_by_path(tmp_path: Path) -> None:
    assert f"valid, {MICRO.size}" in run("validate", own(tmp_path))
    assert printed("validate", own(tmp_path))["valid"] is True


def test_validate_reads_the_constraints_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'memory_gib'"):
        run("validate", own(tmp_path, constraints=["memory_gb <= 1"]))


def test_profile_counts_exactly_what_meets_a_closed_form_constraint(tmp_path: Path) -> None:
    texts = ["params <= 300000", "memory_gib <= 60% of baseline"]
    document = printed("profile", own(tmp_path, constraints=texts))
    bills = [cost(candidate, WORKLOAD) for candidate in MICRO.candidates]
    limit = 0.6 * cost(MICRO.baseline_candidate, WORKLOAD).memory_gib
    small, light = [bill.params <= 300_000 for bill in bills], [bill.memory_gib <= limit for bill in bills]
    assert [reach["feasible"] for reach in document["constraints"]] == [sum(small), sum(light)]
    assert document["feasible"] == sum(a and b for a, b in zip(small, light, strict=True))


def test_profile_spreads_are_those_of_the_candidates() -> None:
    params = sorted(cost(candidate, WORKLOAD).params for candidate in MICRO.candidates)
    spread = printed("profile", "micro")["figures"]["params"]
    assert (spread["low"], spread["high"], spread["known"]) == (params[0], params[-1], MICRO.size)
    assert sum(value <= spread["median"] for value in params) >= MICRO.size / 2


def test_profile_never_guesses_a_latency() -> None:
    document = printed("profile", "pocket")
    assert "latency_ms" not in document["figures"]
    assert document["constraints"][0]["feasible"] is None
    assert "not decided" in run("profile", "pocket")


def test_profile_reads_what_was_measured_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    here = hardware_profiles.detect()
    assert "not measured for" in run("profile", own(tmp_path, constraints=["tpot_ms <= 2"]), "--device", "local")

    wanted = {block.key: block for candidate in MICRO.candidates for block in needed(candidate, WORKLOAD)}

    def made_up(ms: float) -> BlockTiming:
        return BlockTiming(block={}, samples_ms=(ms, 1.5 * ms), canary_ms=1.0, measured_at="2026-01-01", noisy=False)

    store = Store.user_cache()
    store.add_block_timings(context_here(here), {k: made_up(2.0 + 2.0 * b.depth) for k, b in wanted.items()})
    store.close()
    document = printed("profile", "micro", "--device", "local")
    assert document["device"] == here.id
    # a decode step is the shell and every layer, 2 ms each
    figures = document["figures"]["tpot_ms"]
    assert (figures.pop("known"), figures.pop("label")) == (MICRO.size, "composed")
    assert figures == pytest.approx({"low": 4.0, "median": 9.0, "high": 14.0})
