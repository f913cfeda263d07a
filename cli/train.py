"""nas train: train one candidate by the recipe of the finalists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.console import talk


def train(
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE.yaml")],
    to: Annotated[Path, typer.Option("--out", help="Folder of the trained model.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 120,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")] = False,
) -> None:
    """Train a candidate on easy-vqa and report its accuracy on held-out images."""
    import json
    from dataclasses import asdict

    import search_spaces

    design = search_spaces.load_candidate(candidate)
    from nas.train import data
    from nas.train.finalists import train_finalist
    from nas.train.loop import Recipe

    def hear(what: str, done: int, of: int, loss: float | None) -> None:
        if done % 20 == 0 or done == of:
            shown = "" if loss is None else f"  loss {loss:.3f}"
            talk().print(f"{what} {done}/{of}{shown}", highlight=False)

    found = train_finalist(design, Recipe(steps=steps, seed=seed), data.load(), to, hear)
    if json_:
        print(json.dumps(asdict(found), indent=2))
        return
    print(
        f"open accuracy {found.accuracy_open:.3f} [{found.low:.3f}, {found.high:.3f}] {found.label} on {found.data}, "
        f"blind {found.blind_open:.3f}; {found.steps} steps in {found.train_s:.0f} s; model in {to}"
    )
