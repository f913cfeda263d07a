"""nas devices: list, show, validate, detect, schema, calibrate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.console import out, talk

app = typer.Typer(no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")]


@app.command("list")
def list_(json_: Json = False) -> None:
    """Shipped devices, and this machine."""
    import hardware_profiles

    profiles = [hardware_profiles.load(name) for name in ["local", *hardware_profiles.names()]]
    if json_:
        print(
            json.dumps([{"id": p.id, "model": p.identity.model, "unit": p.identity.unit} for p in profiles], indent=2)
        )
        return
    from rich.table import Table

    table = Table("device", "model", "unit", "measurable here")
    for profile in profiles:
        here = "yes (--device local)" if profile.matches_this_machine() else "no"
        table.add_row(profile.id, profile.identity.model, profile.identity.unit, here)
    out().print(table)


@app.command()
def show(device: str, json_: Json = False) -> None:
    """One profile, as YAML or JSON."""
    import hardware_profiles

    profile = hardware_profiles.load(device)
    print(profile.model_dump_json(indent=2) if json_ else hardware_profiles.dump(profile))


@app.command()
def validate(device: str) -> None:
    """Check a profile; exit 2 with the rule that it breaks."""
    import hardware_profiles

    print(f"{hardware_profiles.load(device).id}: valid")


@app.command()
def detect(write: Annotated[Path | None, typer.Option(help="Write the profile to this file.")] = None) -> None:
    """The profile of this machine."""
    import hardware_profiles
    from nas.errors import StorageError

    text = hardware_profiles.dump(hardware_profiles.detect())
    if write is None:
        print(text, end="")
        return
    try:
        write.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {write}: {error.strerror}; choose another file") from error
    talk().print(f"written to {write}; use it with: nas search --device {write}", markup=False, soft_wrap=True)


@app.command()
def schema() -> None:
    """JSON Schema of a profile, for editors."""
    from hardware_profiles import HardwareProfile

    print(json.dumps(HardwareProfile.model_json_schema(), indent=2))


@app.command()
def calibrate(
    device: str,
    space: Annotated[str, typer.Option(help="Measure the blocks of this space.")] = "pocket",
    workload: Annotated[str, typer.Option(help="Shipped name or YAML file.")] = "vqa-short",
) -> None:
    """Measure the blocks that a space needs on this machine; what is cached is not measured again."""
    from nas.config import SearchConfig
    from nas.latency.cache import device_timings
    from nas.search.problem import define

    problem = define(SearchConfig(space=space, devices=[device], workload=workload))
    ((identity, profile),) = problem.profiles.items()
    blocks = problem.blocks(list(problem.space.candidates))
    timings = device_timings(
        profile, blocks, lambda done, of: talk().print(f"measured {done}/{of} blocks", highlight=False)
    )
    noisy = sum(timing.noisy for timing in timings.values())
    print(f"{identity}: {len(timings)} blocks measured (torch-eager, fp32), {noisy} of them noisy")
