"""The two voices of the program: `out` is data on stdout, `talk` is everything else, on stderr."""

from __future__ import annotations

from functools import lru_cache

from rich.console import Console


@lru_cache(maxsize=1)
def out() -> Console:
    """Results. Wide tables are not cut when stdout is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


@lru_cache(maxsize=1)
def talk() -> Console:
    """Progress, hints and errors."""
    return Console(stderr=True)
