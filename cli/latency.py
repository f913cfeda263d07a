"""nas latency: what one candidate takes on a device."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.console import out


class How(StrEnum):
    """How a latency is obtained."""

    composed = "composed"
    measured = "measured"
    estimated = "estimated"


def latency(
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE.yaml")],
    device: Annotated[str, typer.Option(help="local, shipped name or YAML file.")] = "local",
    workload: Annotated[str, typer.Option(help="Shipped name or YAML file.")] = "vqa-short",
    how: Annotated[
        How,
        typer.Option(
            help="composed: from blocks measured here; measured: whole requests; estimated: by the datasheet."
        ),
    ] = How.composed,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")] = False,
) -> None:
    """Latency of one candidate by parts, with its label and interval."""
    import json

    import hardware_profiles
    import nas.workload
    import search_spaces
    from hardware_profiles import ProfileError

    design = search_spaces.load_candidate(candidate)
    profile, asked = hardware_profiles.load(device), nas.workload.load(workload)
    if how is How.estimated:
        from nas.latency.estimate import estimate

        found = estimate(design, asked, profile)
    else:
        if not profile.matches_this_machine():
            raise ProfileError(
                f"device {profile.id!r} is not this machine, so it cannot be measured here; "
                f"run this on it, or add --how estimated"
            )
        from nas.latency.one import composed, measured

        found = (composed if how is How.composed else measured)(design, asked, profile)
    document = {"candidate": design.to_dict(), "device": profile.id, "workload": asked.name, **found.to_dict()}
    if json_:
        print(json.dumps(document, indent=2))
        return
    out().print(f"{design} on {profile.id}, {asked.name}", markup=False, highlight=False)
    for name, value in {**found.to_dict()["parts"], "ttft_ms": found.ttft_ms, "tpot_ms": found.tpot_ms}.items():
        out().print(f"  {name:15} {value:10.2f} {found.label}", highlight=False)
    out().print(
        f"  latency_ms      {found.latency_ms:10.2f} [{found.low_ms:.2f}, {found.high_ms:.2f}] {found.label}",
        highlight=False,
        markup=False,
    )
