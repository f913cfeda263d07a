"""nas train: train one candidate, or the finalists of a run, by the recipe of the finalists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import talk

if TYPE_CHECKING:
    from nas.records import Training

DEFAULT_FINALISTS = 3  # of a run that was searched without any


def train(
    source: Annotated[str, typer.Argument(metavar="RUN|CANDIDATE.yaml", help="A run (or latest), or one candidate.")],
    to: Annotated[Path | None, typer.Option("--out", help="Folder of the trained candidate.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; default: the run's, or the recipe's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a candidate's training; a run has its own.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")] = False,
) -> None:
    """Train on easy-vqa and report the accuracy on held-out images."""
    if Path(source).suffix in {".yaml", ".yml"}:
        _candidate(Path(source), to, steps, seed, json_)
    else:
        _run(source, steps, json_)


def _run(source: str, steps: int | None, json_: bool) -> None:
    """Trains and measures the finalists that the run has not trained yet."""
    from cli import search
    from nas import config as configs
    from nas import run_folder

    made = run_folder.find(source)
    config = configs.load(made.config_file, {}, [])
    update = {"finalists": config.finalists or DEFAULT_FINALISTS, "train_steps": steps or config.train_steps}
    search.go_on(config.model_copy(update=update), made, json_=json_)


def _candidate(source: Path, to: Path | None, steps: int | None, seed: int, json_: bool) -> None:
    import json
    from dataclasses import asdict

    import search_spaces

    design = search_spaces.load_candidate(source)
    from nas.train import data
    from nas.train.finalists import train_finalist
    from nas.train.recipe import Recipe

    folder = to or Path("runs") / "trained" / design.key
    recipe = Recipe(seed=seed) if steps is None else Recipe(seed=seed, steps=steps)
    found = train_finalist(design, recipe, data.load(), folder, _hear)
    print(json.dumps(asdict(found), indent=2) if json_ else _line(found, folder))


def _hear(what: str, done: int, of: int, loss: float | None) -> None:
    if done % 20 == 0 or done == of:
        talk().print(f"{what} {done}/{of}" + ("" if loss is None else f"  loss {loss:.3f}"), highlight=False)


def _line(found: Training, folder: Path) -> str:
    return (
        f"open accuracy {found.accuracy_open:.3f} [{found.low:.3f}, {found.high:.3f}] {found.label} on {found.data}, "
        f"blind {found.blind_open:.3f}; {found.steps} steps in {found.train_s:.0f} s; model in {folder}"
    )
