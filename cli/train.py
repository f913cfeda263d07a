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
    source: Annotated[
        str, typer.Argument(metavar="RUN|CANDIDATE.yaml|EXPORT", help="A run (or latest), one candidate, or an export.")
    ],
    to: Annotated[Path | None, typer.Option("--out", help="Folder of the trained model.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of LLaVA JSON with images or WAV files; not of a RUN.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; default: the run's, or the recipe's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of a candidate's training; a run has its own.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")] = False,
) -> None:
    """Train on easy-vqa or --data and report the accuracy on what is held out; or an export by its two-stage recipe."""
    from nas.errors import ConfigError

    if (Path(source) / "recipe.yaml").is_file():
        if data is None or to is None:
            raise ConfigError("training an export needs --data FOLDER (LLaVA JSON and images) and --out FOLDER")
        _export(Path(source), data, to, steps, seed, json_)
    elif Path(source).suffix in {".yaml", ".yml"}:
        _candidate(Path(source), data, to, steps, seed, json_)
    elif data is not None:
        raise ConfigError(
            f"--data is for a CANDIDATE.yaml or an export, but {source} is neither; a run has the data of its search"
        )
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


def _candidate(source: Path, folder: Path | None, to: Path | None, steps: int | None, seed: int, json_: bool) -> None:
    import json
    from dataclasses import asdict

    import search_spaces

    design = search_spaces.load_candidate(source)
    hears = search_spaces.catalogue.encoder(design.encoder).mels > 0
    from nas.search.training import training_data
    from nas.train.finalists import train_finalist
    from nas.train.recipe import Recipe

    data = training_data(None if folder is None else str(folder), hears=hears)
    target = to or Path("runs") / "trained" / design.key
    recipe = Recipe(seed=seed) if steps is None else Recipe(seed=seed, steps=steps)
    found = train_finalist(design, recipe, data, target, _hear)
    print(json.dumps(asdict(found), indent=2) if json_ else _line(found, target))


def _export(source: Path, data: Path, to: Path, steps: int | None, seed: int, json_: bool) -> None:
    """Both stages of the export's recipe.yaml; `steps` replaces the steps of each."""
    import json

    from nas.export import RECIPE_FILE, check_new, export_hf, load_export
    from nas.train import llava

    check_new(to)
    stages = llava.read_stages(source / RECIPE_FILE)
    if steps is not None:
        changed = [stage.model_copy(update={"steps": steps}) for stage in stages.stages]
        stages = stages.model_copy(update={"stages": changed})
    conversations = llava.read_conversations(data)
    model, processor = load_export(source)
    found = llava.train_stages(model, processor, conversations, stages, seed, _hear)
    card = {"How it was found": {"export": str(source)}, "Training": {"data": str(data), "seed": seed, **found}}
    export_hf(model, processor, to, card=card, asked=conversations[0].turns[0][0])
    if json_:
        print(json.dumps(found, indent=2))
    else:
        for name, stage in found.items():
            print(f"{name}: loss {stage['first_loss']:.3f} -> {stage['last_loss']:.3f} in {stage['steps']} steps")
        print(f"model in {to}")


def _hear(what: str, done: int, of: int, loss: float | None) -> None:
    if done % 20 == 0 or done == of:
        talk().print(f"{what} {done}/{of}" + ("" if loss is None else f"  loss {loss:.3f}"), highlight=False)


def _line(found: Training, folder: Path) -> str:
    return (
        f"open accuracy {found.accuracy_open:.3f} [{found.low:.3f}, {found.high:.3f}] {found.label} on {found.data}, "
        f"blind {found.blind_open:.3f}; {found.steps} steps in {found.train_s:.0f} s; model in {folder}"
    )
