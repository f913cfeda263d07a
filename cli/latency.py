"""nas latency: what one candidate takes on a device."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

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
    workload: Annotated[
        str | None, typer.Option(help="Shipped name or YAML file; default: vqa-short, or audio-clip where it hears.")
    ] = None,
    how: Annotated[
        How,
        typer.Option(help="composed: from blocks; measured: whole requests; estimated: without the device."),
    ] = How.composed,
    runtime: Annotated[str, typer.Option(help="torch-eager, torch-compile, onnxruntime or openvino.")] = "torch-eager",
    dtype: Annotated[str, typer.Option(help="fp32, or what the runtime has besides.")] = "fp32",
    sustained: Annotated[
        float, typer.Option(min=0, help="measured: also the median after this many seconds under load.")
    ] = 0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")] = False,
) -> None:
    """Latency of one candidate by parts, with its label and interval."""
    import json

    import hardware_profiles
    import nas.workload
    import search_spaces
    from nas.cost import cost
    from nas.latency.backends import check

    check(runtime, dtype)
    design = search_spaces.load_candidate(candidate)
    profile, asked = hardware_profiles.load(device), nas.workload.of_encoder(design.encoder, workload)
    profile.check_room(cost(design, asked).memory_gib, str(design))
    beside: dict[str, Any] = {}
    if how is How.estimated:
        from nas.latency.estimate import Setting, estimate, known_calibration

        found = estimate(design, asked, profile, known_calibration(profile.id), Setting(runtime, dtype))
    else:
        from nas.latency import one
        from nas.latency.energy import NOT_COUNTED
        from nas.latency.runners import runner_for

        runner_for(profile)  # a device that cannot be reached is refused before anything is loaded
        if how is How.composed:
            found = one.composed(design, asked, profile, runtime, dtype)
        else:
            seen = one.measured(design, asked, profile, runtime, dtype, sustained)
            found = seen.latency
            beside = {"sustained_ms": seen.sustained_ms, "canary_ms": seen.canary_ms, "rounds_ms": seen.totals_ms}
            beside |= {"energy_j": seen.energy_j, "energy_note": NOT_COUNTED if seen.energy_j is None else None}
            if seen.memory is not None:
                beside["memory"] = seen.memory.in_gib()
    if json_:
        document = {"candidate": design.to_dict(), "device": profile.id, "runtime": runtime, "dtype": dtype}
        print(json.dumps({**document, "workload": asked.name, **found.to_dict(), **beside}, indent=2))
        return
    from nas.report_checks import number

    out().print(f"{design} on {profile.id}, {runtime} {dtype}, {asked.name}", markup=False, highlight=False)
    for name, value in {**found.to_dict()["parts"], "ttft_ms": found.ttft_ms, "tpot_ms": found.tpot_ms}.items():
        out().print(f"  {name:15} {number(value):>10} {found.label}", highlight=False)
    total = f"{number(found.latency_ms):>10} [{number(found.low_ms)}, {number(found.high_ms)}] {found.label}"
    out().print(f"  latency_ms      {total}", highlight=False, markup=False)
    if beside.get("sustained_ms") is not None:
        out().print(
            f"  sustained_ms    {beside['sustained_ms']:10.2f} measured, after {sustained:g} s", highlight=False
        )
    if beside.get("energy_j") is not None:
        out().print(f"  energy_j        {beside['energy_j']:10.2f} measured, whole processor", highlight=False)
    for name, value in beside.get("memory", {}).items():
        out().print(f"  {name:15} {value:10.3f} measured, resident", highlight=False)
