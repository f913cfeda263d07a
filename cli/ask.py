"""nas ask: one question about one image, or clip of sound, to an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.console import out


def ask(
    export: Annotated[Path, typer.Argument(help="Folder written by `nas export` or by a search.")],
    image: Annotated[Path, typer.Argument(help="PNG or JPEG file; a WAV file where the model hears.")],
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 16,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Ask an exported model a question about an image, or about a clip of sound."""
    from nas.ask import ask as ask_export

    answer = ask_export(export, image, question, max_new_tokens)
    if json:
        from json import dumps

        print(dumps({"export": str(export), "image": str(image), "question": question, "answer": answer}))
    else:
        out().print(answer, markup=False, highlight=False)
