"""The program `nas`: wires the commands together and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from cli.console import talk

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

GROUPS = {"spaces": "what may be built", "devices": "where it runs", "proxies": "scores without training"}
COMMANDS = ("search", "resume", "report", "export", "ask", "train", "dashboard", "latency", "env")
COMMAND_MODULES = {"resume": "search"}  # commands that live beside another one


def _version(wanted: bool) -> None:
    if wanted:
        from nas import __version__

        print(f"nas {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """The whole command tree; importing it loads no torch, optuna or ray."""
    app = typer.Typer(
        name="nas",
        help="Neural architecture search for efficient multimodal LLMs.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        """Find, prove and export efficient vision-language models for your device."""

    for name in COMMANDS:
        module = import_module(f"cli.{COMMAND_MODULES.get(name, name)}")
        app.command(name)(getattr(module, name))
    for name, summary in GROUPS.items():
        app.add_typer(import_module(f"cli.{name}").app, name=name, help=summary)
    return app


def main() -> None:
    """Entry point: user errors are one line on stderr and exit 2 (3 when nothing is feasible)."""
    from hardware_profiles import ProfileError
    from nas.errors import NasError
    from proxies import ProxyError
    from search_spaces import SpaceError

    try:
        sys.exit(build_app()(prog_name="nas", standalone_mode=False))
    except typer.TyperException as error:
        _fail_usage(error)
    except (SpaceError, ProfileError, ProxyError) as error:
        _fail(str(error), EXIT_USAGE)
    except NasError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _fail_usage(error: typer.TyperException) -> NoReturn:
    """What Typer refuses, as one line; without a command it has printed the help already."""
    said = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    if not said:
        sys.exit(EXIT_USAGE)
    if isinstance(error.__cause__, ValidationError):
        value = repr(error.__cause__.errors()[0]["input"])
        said += "" if value in said else f", but got {value}"
    context = getattr(error, "ctx", None)
    _fail(f"{said}; see `{context.command_path if context else 'nas'} --help`", EXIT_USAGE)


def _fail(message: str, code: int) -> NoReturn:
    talk().print(f"nas: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
