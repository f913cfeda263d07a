"""Broken inputs of every command that reads one, and what the program makes of them, in this process."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

import hardware_profiles
import search_spaces
from nas.config import SearchConfig

CLEAN = (0, 2, 3)
FILE = "FILE.yaml"  # stands for the fuzzed file in arguments


@dataclass(frozen=True)
class Input:
    """Arguments, and the text of the file that they name."""

    arguments: tuple[str, ...]
    text: str | bytes = ""


@dataclass(frozen=True)
class Outcome:
    """How the program ended."""

    code: int
    said: str
    trace: str
    left: tuple[str, ...] = ()  # what it made in its folder

    @property
    def is_clean(self) -> bool:
        return not self.trace and self.code in CLEAN and "Traceback" not in self.said


def run_one(given: Input) -> Outcome:
    """The program on one input, in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="nas-fuzz-") as name:
        folder = Path(name)
        (folder / FILE).write_bytes(
            given.text if isinstance(given.text, bytes) else given.text.encode("utf-8", "ignore")
        )
        said = io.StringIO()
        before, arguments = Path.cwd(), sys.argv
        os.chdir(folder)
        sys.argv = ["nas", *given.arguments]
        try:
            with redirect_stdout(said), redirect_stderr(said):
                code = _code()
            left = tuple(sorted(path.name for path in folder.iterdir() if path.name != FILE))
            return Outcome(code, said.getvalue(), "", left)
        except Exception:
            return Outcome(1, said.getvalue(), traceback.format_exc())
        finally:
            os.chdir(before)
            sys.argv = arguments


def _code() -> int:
    from cli.main import main

    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ODD = st.sampled_from(
    [".inf", ".nan", "-0", "1e400", "0x1F", "0o7", "~", "yes", "2026-99-99", "!!int x", "!!python/name:os.system", "&a [*a]",
     "*b", "? [1]", "{", "'", "\t", "9" * 400, "---\n---", "!!binary x", "!!set {a}", "!!timestamp x", "<<: 1", "\u2028"]
)  # fmt: skip
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.integers(-(10**30), 10**30)
    | st.sampled_from(["micro", "pocket", "local", "quality", "latency_ms", "none", "linear", "a/b", "../x", "x.yaml"])
)  # fmt: skip
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=8
)


@cache
def examples() -> dict[str, Any]:
    """A valid file of each kind, whose fields are then broken."""
    space = yaml.safe_load((Path(search_spaces.__file__).parent / "micro.yaml").read_text(encoding="utf-8"))
    device = hardware_profiles.load("raspberry-pi-5-8gb").model_dump(mode="json", by_alias=True)
    workload = {"name": "mine", "images": 1, "prompt_tokens": 16, "new_tokens": 8, "batch": 1}
    config = SearchConfig(space="micro", devices=["raspberry-pi-5-8gb"]).model_dump(mode="json")
    candidate = search_spaces.load("micro").baseline_candidate.to_dict()
    return {"space": space, "device": device, "workload": workload, "run": config, "candidate": candidate}


@st.composite
def broken(draw: st.DrawFn, kind: str) -> str | bytes:
    """A file of that kind: valid but for a few fields, or no such file at all."""
    way = draw(st.integers(0, 9))
    if way == 0:
        return draw(st.binary(max_size=60))
    if way == 1:
        return draw(TEXT)
    if way == 2:
        return yaml.safe_dump(draw(VALUES))
    fields = yaml.safe_load(yaml.safe_dump(examples()[kind]))
    for _ in range(draw(st.integers(1, 3))):
        _break(draw, fields)
    text = yaml.safe_dump(fields, sort_keys=False)
    if way == 3:
        line = draw(st.integers(0, len(text.splitlines())))
        lines = text.splitlines()
        lines.insert(line, draw(ODD))
        return "\n".join(lines)
    if way == 4:
        return text.replace(": ", f": {draw(ODD)} ", 1)
    return text


def _break(draw: st.DrawFn, fields: dict[str, Any]) -> None:
    """Somewhere in the nested mapping: another value, another key, or none."""
    place: Any = fields
    while place:
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        act = draw(st.integers(0, 4))
        if act == 0 and isinstance(place, dict):
            del place[key]
        elif act == 1 and isinstance(place, dict):
            place[draw(TEXT)] = draw(VALUES)
        else:
            place[key] = draw(VALUES)
        return


def with_file(arguments: tuple[str, ...], kind: str) -> st.SearchStrategy[Input]:
    return st.builds(Input, st.just(arguments), broken(kind))


WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=15) | st.sampled_from(
    ["latency_ms <= 3", "memory_gib<=", "<= 4", "latency_ms <= 60% of baseline", "latency_ms <= 1e999", "params <= nan",
     "ttft_ms@x <= 1", "latency_ms <= 10% of FILE.yaml", "quality >= 2", "-1", "0", "1e9", "90s", "0h", "∞", "micro", "--", ""]
)  # fmt: skip
SETTINGS = st.builds(
    lambda key, value: f"{key}={value}",
    st.sampled_from(["space.axes.lm_depth", "space.axes.x", "trials", "storage", "seed", "proxies", "overrides", "devices"])
    | WORD,
    WORD | ODD | st.builds(lambda value: yaml.safe_dump(value).strip(), VALUES),
)  # fmt: skip
FLAGS = ("--space", "--device", "--runtime", "--dtype", "--workload", "--objective", "--constraint", "--trials", "--timeout",
         "--workers", "--seed", "--sampler", "--storage", "--study", "--out", "--anchors", "--finalists", "--train-steps", "--set")  # fmt: skip
DRY = ("search", "--dry-run", "--device", "raspberry-pi-5-8gb", "--space", "micro")


def _flagged(pairs: list[tuple[str, str]]) -> Input:
    return Input((*DRY, *(word for pair in pairs for word in pair)))


COMMANDS = (("report",), ("resume",), ("export",), ("ask",), ("train",), ("latency",), ("spaces", "show"), ("devices", "show"),
            ("spaces", "profile"), ("proxies", "score"), ("proxies", "validate"), ("devices", "validate"), ("dashboard",))  # fmt: skip
INPUTS: dict[str, st.SearchStrategy[Input]] = {
    "run file": with_file(("search", FILE, "--dry-run"), "run"),
    "space": with_file(("spaces", "validate", FILE), "space"),
    "space of a search": with_file((*DRY, "--space", FILE), "space"),
    "device": with_file(("devices", "validate", FILE), "device"),
    "device of a search": with_file(("search", "--dry-run", "--space", "micro", "--device", FILE), "device"),
    "workload": with_file((*DRY, "--workload", FILE), "workload"),
    "candidate": with_file(
        ("latency", FILE, "--device", "raspberry-pi-5-8gb", "--how", "estimated", "--json"), "candidate"
    ),
    "setting": st.builds(lambda setting: Input((*DRY, "--set", setting)), SETTINGS),
    "flags": st.builds(_flagged, st.lists(st.tuples(st.sampled_from(FLAGS), WORD), max_size=3)),
    "commands": st.builds(
        lambda command, words: Input((*command, *words)), st.sampled_from(COMMANDS), st.lists(WORD, max_size=2)
    ),
}
