"""nas dashboard: Optuna's dashboard on a run, on loopback only."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.console import out, talk


def dashboard(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or latest.")] = "latest",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes any free one.")] = 8080,
) -> None:
    """Watch a run in the browser, also while it is searching."""
    import importlib.util

    from nas import run_folder
    from nas.errors import MissingPackageError

    folder = run_folder.find(run)
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise MissingPackageError(
            "the dashboard needs the package 'optuna-dashboard'; run: pip install optuna-dashboard"
        )
    from nas.search import board

    with board.open_server(folder, port) as server:
        out().print(board.address(server), markup=False, highlight=False, soft_wrap=True)
        out().file.flush()
        talk().print(f"serving {folder.path}; stop with Ctrl-C", markup=False, highlight=False, soft_wrap=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            talk().print("stopped", markup=False, highlight=False)
