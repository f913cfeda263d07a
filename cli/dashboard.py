"""nas dashboard: Optuna's dashboard on a run, on loopback only."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Annotated

import typer

from cli.console import talk

HOST = "127.0.0.1"


def dashboard(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or latest.")] = "latest",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 8080,
) -> None:
    """Watch a run in the browser, also while it is searching."""
    from nas import config as configs
    from nas import run_folder
    from nas.errors import MissingPackageError

    folder = run_folder.find(run)
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise MissingPackageError(
            "the dashboard needs the package 'optuna-dashboard'; run: pip install optuna-dashboard"
        )
    config = configs.load(folder.config_file, {}, [])
    artifacts = folder.path / "artifacts"
    artifacts.mkdir(exist_ok=True)
    talk().print(f"http://{HOST}:{port}/dashboard/  (stop with Ctrl-C)", markup=False, highlight=False)
    code = "from optuna_dashboard._cli import main; main()"
    arguments = [
        config.storage or folder.default_storage, "--host", HOST, "--port", str(port), "--artifact-dir", str(artifacts),
    ]  # fmt: skip
    raise typer.Exit(subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode)
