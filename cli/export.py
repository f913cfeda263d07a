"""nas export: a trained finalist of a run as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.console import out, talk

FORMATS = ("hf",)


def export(
    run: Annotated[str, typer.Argument(help="Run folder, or `latest`.")],
    to: Annotated[Path, typer.Option(help="New or empty folder to write.")],
    rank: Annotated[int | None, typer.Option(help="1 is the finalist with the best trained accuracy.")] = None,
    candidate: Annotated[str | None, typer.Option(help="Key of a trained finalist, instead of a rank.")] = None,
    format: Annotated[str, typer.Option(help="hf: config, safetensors, tokenizer, model card.")] = "hf",  # noqa: A002
) -> None:
    """Write a trained finalist as a Hugging Face folder and prove that it reloads with identical logits."""
    from nas.errors import ConfigError

    if format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, but got {format!r}")
    if rank is not None and candidate is not None:
        raise ConfigError("give --rank or --candidate, not both")
    from nas.export import checkpoint, export_hf, load_export, training_record
    from nas.run_folder import find

    folder = find(run).path
    key, source = checkpoint(folder, rank=1 if rank is None else rank, key=candidate)
    model, processor = load_export(source)
    card = {"How it was found": {"run": folder.name, "candidate": key}, "Training": training_record(folder, key)}
    difference = export_hf(model, processor, to, card=card)
    talk().print(f"{model.candidate}: reloaded with max logit difference {difference}", markup=False, highlight=False)
    out().print(str(to), markup=False, highlight=False, soft_wrap=True)
