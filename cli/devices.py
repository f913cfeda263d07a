"""nas devices: list, show, validate, detect, schema, calibrate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import out, talk

if TYPE_CHECKING:
    from nas.latency.calibrate import CompositionCheck
    from nas.latency.device import Device

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

    table = Table("device", "model", "class, unit", "dense TFLOPS", "GB/s", "usable GiB", "here")
    for profile in profiles:
        peak = ", ".join(f"{dtype} {figure.value:g}" for dtype, figure in profile.compute.peak_tflops.items())
        bandwidth, usable = profile.memory.bandwidth_gbps.value, profile.memory.usable_gib.value
        table.add_row(
            profile.id,
            profile.identity.model,
            f"{profile.identity.device_class}, {profile.identity.unit}",
            peak or "not read",
            "not read" if bandwidth is None else f"{bandwidth:g}",
            "not read" if usable is None else f"{usable:g}",
            "measured" if profile.matches_this_machine() else "estimated",
        )
    out().print(table)


@app.command()
def show(device: str, json_: Json = False) -> None:
    """One profile, as YAML or JSON."""
    import hardware_profiles

    profile = hardware_profiles.load(device)
    print(profile.model_dump_json(indent=2, by_alias=True) if json_ else hardware_profiles.dump(profile))


@app.command()
def validate(device: str) -> None:
    """Check a profile; exit 2 with the rule that it breaks."""
    import hardware_profiles

    print(f"{hardware_profiles.load(device).id}: valid")


@app.command()
def detect(
    write: Annotated[Path | None, typer.Option(help="Write the profile to this file.")] = None,
    gpu: Annotated[int | None, typer.Option(min=0, help="Of this NVIDIA GPU instead of the CPU, e.g. 0.")] = None,
) -> None:
    """The profile of this machine: its CPU, or one of its NVIDIA GPUs."""
    import hardware_profiles
    from hardware_profiles import ProfileError

    if gpu is None:
        text = hardware_profiles.dump(hardware_profiles.detect())
    else:
        found = hardware_profiles.detect_gpus()
        if gpu >= len(found):
            raise ProfileError(f"--gpu must name one of the {len(found)} NVIDIA GPUs seen here, but is {gpu}")
        text = hardware_profiles.dump(found[gpu])
    if write is None:
        print(text, end="")
    else:
        _write(text, write)


def _write(text: str, write: Path) -> None:
    from nas.errors import StorageError

    try:
        write.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {write}: {error.strerror}; choose another file") from error
    talk().print(f"written to {write}; use it with: nas search --device {write}", markup=False, soft_wrap=True)


@app.command()
def schema() -> None:
    """JSON Schema of a profile, for editors."""
    from hardware_profiles import HardwareProfile

    print(json.dumps(HardwareProfile.model_json_schema(by_alias=True), indent=2))


@app.command()
def calibrate(
    device: str,
    space: Annotated[str, typer.Option(help="Measure the blocks of this space.")] = "pocket",
    workload: Annotated[str | None, typer.Option(help="Shipped name or YAML file; default: the space's own.")] = None,
    runtime: Annotated[str, typer.Option(help="torch-eager, torch-compile, onnxruntime or openvino.")] = "torch-eager",
    dtype: Annotated[str, typer.Option(help="fp32, or what the runtime has besides.")] = "fp32",
    check: Annotated[int, typer.Option(min=0, help="Candidates to run end to end and compare with; 0 = none.")] = 12,
    points: Annotated[
        int | None, typer.Option(min=5, help="Measure only so many spread blocks, and estimate the rest from them.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Write the profile with the speeds that were measured of the device to this file."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="As of a search, e.g. measuring_s=120: the blocks, and the check.")
    ] = None,
    json_: Json = False,
) -> None:
    """Measure the blocks that a space needs, and how well they compose; what is cached is not measured again."""
    from nas import config as configs
    from nas.latency import calibrate as calibration
    from nas.latency.device import Device
    from nas.latency.runners import runner_for
    from nas.search.gate import fitting
    from nas.search.problem import define
    from nas.store import Store

    flags = {"space": space, "devices": [device], "workload": workload, "runtime": runtime, "dtype": dtype}
    config = configs.load(None, flags, settings or [])
    problem = define(config)
    ((identity, profile),) = problem.profiles.items()
    runner_for(profile)
    candidates = fitting(problem, problem.space.survey)
    store = Store.user_cache()
    try:
        asked = Device(profile, store, runtime, dtype)
        speeds = _speeds(asked, write)
        if points is not None:
            model = calibration.from_points(asked, problem.blocks(candidates), points)
            talk().print(f"coefficients written to {calibration.keep(model, identity)}", soft_wrap=True)
            print(
                f"{identity}: {model.points} blocks measured; what is estimated from them is labelled "
                f"estimated:calibrated; 80 % of the truth lies within {model.low_ratio:.2f} to {model.high_ratio:.2f} "
                f"of it (each block left out in turn)"
            )
            return
        blocks = problem.blocks(candidates)
        timings = asked.timings(
            blocks,
            lambda done, of: talk().print(f"measured {done}/{of} blocks", highlight=False),
            asked.plan(blocks, config.measuring_s),
        )
        measured = timings.measured
        contended = sum(timing.contended for timing in measured.values())
        head = (
            f"{identity}, {runtime} {timings.context.version} {dtype}: {len(measured)} blocks measured "
            f"({contended} while other work ran), {len(timings) - len(measured)} others fitted to them"
        )
        found = None
        if check:
            talk().print(f"running {check} candidates end to end", highlight=False)
            found = calibration.check_composition(
                asked, candidates, problem.workload, timings, check, config.measuring_s
            )
    finally:
        store.close()
    if json_:
        document = {"blocks": len(measured), "calibration": speeds, **({} if found is None else found.to_dict())}
        print(json.dumps(document, indent=2))
        return
    print(head)
    if found is not None:
        _print_check(found)


def _speeds(asked: Device, write: Path | None) -> dict[str, Any]:
    """Measured of the device first: figures of its profile that they contradict are named, and never written."""
    import hardware_profiles

    found = asked.speeds()
    rows, gflops = max(found.gemm_gflops.items(), key=lambda item: item[1])
    talk().print(
        f"{asked.profile.id}: {gflops:.0f} GFLOPS in products ({rows}), {found.gemv_gbps:.1f} GB/s in products with a "
        f"vector, {found.read_gbps:.1f} GB/s in reading",
        highlight=False,
        soft_wrap=True,
    )
    try:
        profile = hardware_profiles.calibrated(asked.profile, found)
    except hardware_profiles.ProfileError as error:
        if write is not None:
            raise
        talk().print(f"warning: {error}", markup=False, highlight=False, soft_wrap=True)
    else:
        if write is not None:
            _write(hardware_profiles.dump(profile), write)
    return found.model_dump(mode="json")


def _print_check(found: CompositionCheck) -> None:
    from rich.table import Table

    from nas.latency.calibrate import MEMORY, METRICS

    table = Table("composed / measured - 1", "mean |error|", "largest", "bias", "Spearman")
    for metric, error in found.errors.items():
        shown = (f"{error.mean:.1%}", f"{error.worst:.1%}", f"{error.bias:+.1%}", f"{error.spearman:.3f}")
        table.add_row(f"{metric}, closed form" if metric == MEMORY else metric, *shown)
    out().print(
        f"{found.candidates} candidates spread over the space, composed and measured whole in {found.rounds} rounds:"
    )
    out().print(table)
    out().print(f"{found.inside} of {found.candidates} measured latencies lie in the interval that a search shows")
    worst = max(found.errors[metric].worst for metric in METRICS)
    if worst > 0.1:
        out().print(f"composition: weak (largest error {worst:.0%}); calibrate again on a quiet device")
