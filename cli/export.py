"""nas export: a trained finalist, an export or a candidate, as a folder that others can load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import out, talk

if TYPE_CHECKING:
    from nas.model import MultimodalLM, Processor

FORMATS = ("hf", "llava", "idefics3", "fastvlm", "onnx", "executorch", "gguf")


def export(
    source: Annotated[str, typer.Argument(metavar="RUN|EXPORT|CANDIDATE.yaml", help="A run (or latest), or a model.")],
    to: Annotated[Path, typer.Option(help="New or empty folder to write.")],
    rank: Annotated[int | None, typer.Option(help="1 is the finalist with the best trained accuracy.")] = None,
    candidate: Annotated[str | None, typer.Option(help="Key of a trained finalist, instead of a rank.")] = None,
    format: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")] = "hf",  # noqa: A002
    lm_from: Annotated[str | None, typer.Option(help="CANDIDATE.yaml: folder of the decoder's weights.")] = None,
    encoder_from: Annotated[str | None, typer.Option(help="CANDIDATE.yaml: folder of the encoder's weights.")] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Let --lm-from and --encoder-from name hub repositories.")] = False,
) -> None:
    """Write a model in a form that others load, and prove that it gives the same logits there."""
    from nas.errors import ConfigError

    if format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, but got {format!r}")
    if rank is not None and candidate is not None:
        raise ConfigError("give --rank or --candidate, not both")
    if Path(source).suffix in {".yaml", ".yml"}:
        model, processor, card = _built(Path(source), lm_from, encoder_from, hub)
    elif lm_from or encoder_from or hub:
        raise ConfigError("--lm-from, --encoder-from and --hub are for a CANDIDATE.yaml; a run has its own weights")
    else:
        model, processor, card = _trained(source, rank, candidate)
    difference = _write(model, processor, to, format, card)
    told = f"{model.candidate}: reloaded with max logit difference {difference:.2g}"
    talk().print(told, markup=False, highlight=False, soft_wrap=True)
    out().print(str(to), markup=False, highlight=False, soft_wrap=True)


def _trained(source: str, rank: int | None, key: str | None) -> tuple[MultimodalLM, Processor, dict[str, Any]]:
    """An export, or a finalist of a run."""
    from nas.export import checkpoint, load_export, training_record
    from nas.run_folder import find

    if (Path(source) / "config.json").is_file():
        return *load_export(Path(source)), {"How it was found": {"export": source}}
    folder = find(source).path
    key, finalist = checkpoint(folder, rank=1 if rank is None else rank, key=key)
    card = {"How it was found": {"run": folder.name, "candidate": key}, "Training": training_record(folder, key)}
    return *load_export(finalist), card


def _built(
    file: Path, lm: str | None, encoder: str | None, hub: bool
) -> tuple[MultimodalLM, Processor, dict[str, Any]]:
    """A candidate with the weights that there are; what became of each tensor is said."""
    import search_spaces

    design = search_spaces.load_candidate(file)
    from nas.model import Processor, Sources, build

    model = build(design, sources=Sources(encoder=encoder, lm=lm, hub=hub))
    for part, report in model.reports.items():
        talk().print(f"{part}: {report}", markup=False, highlight=False, soft_wrap=True)
    weights = {part: str(report) for part, report in model.reports.items()} or {"all parts": "random"}
    return model, Processor.of(design), {"How it was found": {"candidate": str(file)}, "Weights": weights}


def _write(model: MultimodalLM, processor: Processor, to: Path, form: str, card: dict[str, Any]) -> float:
    if form == "hf":
        from nas.export import export_hf

        return export_hf(model, processor, to, card=card)
    if form == "onnx":
        from nas.export_onnx import export_onnx

        return export_onnx(model, processor, to)
    if form == "executorch":
        from nas.export_executorch import export_executorch

        return export_executorch(model, processor, to)
    if form == "gguf":
        from nas.export_gguf import export_gguf

        return export_gguf(model, processor, to)
    from nas.export_transformers import export_form

    return export_form(model, processor, to, form)
