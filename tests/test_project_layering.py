"""Who may import whom: cli -> nas -> {proxies, search_spaces, hardware_profiles}; heavy libraries in their rooms."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cli", "nas", "proxies", "search_spaces", "hardware_profiles")
MAY_IMPORT = {
    "cli": set(PACKAGES),
    "nas": {"nas", "proxies", "search_spaces", "hardware_profiles"},
    "proxies": {"proxies"},
    "search_spaces": {"search_spaces"},
    "hardware_profiles": {"hardware_profiles"},
}
# library -> the only places that may import it
ROOMS = {
    "ray": ("nas/ray_",),
    "sqlalchemy": ("nas/store",),
    "optuna": ("nas/search/", "nas/store", "nas/report", "nas/figures.py"),
    "optuna_dashboard": ("nas/search/",),
}
HEAVY = ("torch", "transformers", "timm", "ray", "optuna", "sqlalchemy", "plotly", "scipy", "sklearn", "torchvision")


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_every_import_follows_the_arrows() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources()
        for name in imports(path) & set(PACKAGES)
        if name not in MAY_IMPORT[path.relative_to(ROOT).parts[0]]
    ]
    assert not wrong


def test_each_library_stays_in_its_room() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {library}"
        for path in sources()
        for library, rooms in ROOMS.items()
        if library in imports(path) and not path.relative_to(ROOT).as_posix().startswith(rooms)
    ]
    assert not wrong


def test_spaces_and_profiles_never_import_torch() -> None:
    torch_free = [
        path for path in sources() if path.relative_to(ROOT).parts[0] in ("search_spaces", "hardware_profiles")
    ]
    assert not [path for path in torch_free if "torch" in imports(path)]


def test_no_file_is_called_utils_common_base_manager_or_helper() -> None:
    vague = {"utils", "util", "common", "base", "manager", "helper", "helpers"}
    assert not [path for path in sources() if path.stem in vague]


def run_and_tell(arguments: list[str], libraries: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """`nas` with these arguments in a process of its own, which at its end names those of the libraries it loaded."""
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('LOADED', [m for m in {libraries!r} if m in sys.modules], file=sys.stderr))\n"
        f"sys.argv = ['nas', *{arguments!r}]\n"
        "from cli.main import main\nmain()"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["spaces", "list"], ["search", "--space", "pokcet"], ["devices", "list"]],
    ids=["help", "spaces-list", "bad-space", "devices-list"],
)
def test_light_commands_load_no_heavy_library(arguments: list[str]) -> None:
    done = run_and_tell(arguments, HEAVY)
    assert "LOADED []" in done.stderr, done.stderr
