"""nas env: versions and machine, for a bug report."""

from __future__ import annotations


def env() -> None:
    """Versions, processor and load, as JSON."""
    import json

    from nas.run_folder import environment

    print(json.dumps(environment(), indent=2))
