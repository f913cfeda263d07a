"""nas search, nas resume: start a search, or go on with one."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import out, talk

if TYPE_CHECKING:
    from nas.config import SearchConfig
    from nas.records import Evaluation
    from nas.run_folder import RunFolder
    from nas.search.problem import Problem


REPLAYED = ("objectives", "sampler", "trials", "workers", "seed", "storage")  # the last comes from the environment


def search(
    file: Annotated[Path | None, typer.Argument(metavar="RUN.yaml", help="Settings; flags win over them.")] = None,
    space: Annotated[str | None, typer.Option(help="Shipped name or YAML file.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="local, shipped name or YAML file.")] = None,
    runtime: Annotated[str | None, typer.Option(help="torch-eager, torch-compile, onnxruntime, openvino.")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp32, or what the runtime has besides.")] = None,
    workload: Annotated[str | None, typer.Option(help="Shipped name or YAML file; default: the space's own.")] = None,
    objective: Annotated[list[str] | None, typer.Option(help="quality, latency_ms, ttft_ms, memory_gib, ...")] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help='"ttft_ms <= 500", "latency_ms <= 60% of baseline"')
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Candidates to build and score.")] = None,
    timeout: Annotated[str | None, typer.Option(help="90s, 30m, 2h: no new trial after that.")] = None,
    workers: Annotated[int | None, typer.Option(help="1 = in this process, more = Ray actors.")] = None,
    seed: Annotated[int | None, typer.Option(help="Sampler, weights and data.")] = None,
    sampler: Annotated[str | None, typer.Option(help="nsga2, nsga3, tpe, gp, random or funnel.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database URL; default: SQLite in the run folder.", envvar="NAS_STORAGE")
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="HOST:PORT of a Ray cluster that runs already.")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    folder: Annotated[str | None, typer.Option("--out", help="Where run folders go.")] = None,
    anchors: Annotated[int | None, typer.Option(help="Candidates to train first and fit the score on; try 12.")] = None,
    finalists: Annotated[int | None, typer.Option(help="Candidates of the front to train and measure.")] = None,
    rungs: Annotated[int | None, typer.Option(help="Rungs of training on the way to the finalists.")] = None,
    train_steps: Annotated[int | None, typer.Option(help="Training steps a finalist.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder of LLaVA JSON with images or WAV files to train on.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, e.g. space.axes.lm_depth=[6,12]")
    ] = None,
    resumed: Annotated[bool, typer.Option("--resume", help="Go on with --study, or with the newest run.")] = False,
    start_from: Annotated[
        str | None,
        typer.Option("--from", help="Earlier run, also of another device: its scores and trainings stay known."),
    ] = None,
    candidate: Annotated[list[str] | None, typer.Option(help="YAML file of a candidate to begin with.")] = None,
    replay: Annotated[
        Path | None, typer.Option(help="CSV or JSONL of evaluated designs: compare samplers on it, building nothing.")
    ] = None,
    axis: Annotated[list[str] | None, typer.Option(help="--replay: a column that is an axis; default: ours.")] = None,
    repeats: Annotated[
        int | None, typer.Option(help="--replay: paired seeds, from --seed on; default: 20.", min=2)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the resolved settings only.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON document and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Search a space for the best designs on a device; train, measure and export the finalists."""
    from nas import config as configs
    from nas import run_folder
    from nas.errors import ConfigError

    flags: dict[str, Any] = {
        "space": space, "devices": device, "runtime": runtime, "dtype": dtype, "workload": workload,
        "objectives": objective, "constraints": constraint,
        "trials": trials, "timeout_s": configs.duration(timeout), "workers": workers, "seed": seed, "sampler": sampler,
        "storage": storage, "cluster": cluster, "study": study, "out": folder, "anchors": anchors,
        "finalists": finalists, "rungs": rungs, "train_steps": train_steps, "start_from": start_from,
        "candidates": candidate, "data": data,
    }  # fmt: skip
    if replay is not None:
        from cli.replay import replay_table

        unread = {name: value for name, value in flags.items() if name not in REPLAYED} | {
            "file": file, "set": settings, "resume": resumed or None, "dry-run": dry_run or None,
        }  # fmt: skip
        if given := [name for name, value in unread.items() if value is not None]:
            raise ConfigError(f"--replay builds nothing and does not read {', '.join(given)}")
        seeds = range(seed or 0, (seed or 0) + (repeats or 20))
        replay_table(replay, objective, axis, sampler, trials, workers, seeds, json_=json_, quiet=quiet)
        return
    if axis or repeats is not None:
        flag = "--axis" if axis else "--repeats"
        raise ConfigError(f"{flag} is of --replay TABLE only; give the table, or leave it out")
    config = configs.load(file, flags, settings or [])
    before = run_folder.find(str(Path(config.out) / (config.study or run_folder.LATEST))) if resumed else None
    if before:  # what is not given is as it was
        config = configs.load(file, flags, settings or [], before=before.config_file)
    from nas.search.problem import define
    from nas.search.warm import earlier_run, named

    if config.data is not None:  # a run is gone on with from anywhere
        config = config.model_copy(update={"data": str(Path(config.data).resolve())})
    problem = define(config)  # everything a search names is read before anything is made
    named(problem)
    if config.data is not None:
        from nas.search.training import training_data

        training_data(config.data, hears=problem.hears, most=config.train_images)
    config = config.model_copy(update={"workload": config.workload or problem.space.workload})
    if config.start_from is not None:  # a run folder has another place than this one's
        found = earlier_run(config.start_from, Path(config.out)).path
        config = config.model_copy(update={"start_from": str(found)})
    if dry_run:
        print(configs.dump(config))
        return
    if before:
        _go_on_otherwise(config, before)
        go_on(configs.load(before.config_file, {}, []), before, json_=json_, quiet=quiet)
        return
    _check_reached(config)
    name = config.study or f"{problem.space.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    made = run_folder.create(Path(config.out), name, _files(config.model_copy(update={"study": name}), problem))
    go_on(configs.load(made.config_file, {}, []), made, json_=json_, quiet=quiet)


def _check_reached(config: SearchConfig) -> None:
    """What a search writes to and works with, before anything is made. Raises: StorageError, RunnerError."""
    if config.storage is not None:
        from nas.store import connect

        connect(config.storage).dispose()
    if config.cluster is not None:
        from nas import ray_session

        ray_session.check(config.cluster)


def _files(config: SearchConfig, problem: Problem) -> dict[str, str]:
    """What a run's folder holds from the beginning, by name: its config, the devices, and the files that it names."""
    import hardware_profiles
    from nas import config as configs
    from nas import inputs, run_folder

    fields, copies = inputs.copies(config.model_dump())
    devices = {f"devices/{name}.yaml": hardware_profiles.dump(one) for name, one in problem.profiles.items()}
    return {run_folder.CONFIG: configs.dump(configs.SearchConfig(**fields)), **devices, **copies}


def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or latest.")] = "latest",
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON document and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Go on with a run that was stopped: the remaining trials and finalists; nothing finished is repeated."""
    from nas import config as configs
    from nas import run_folder

    made = run_folder.find(run)
    go_on(configs.load(made.config_file, {}, []), made, json_=json_, quiet=quiet)


# What makes a run what it is; trials, time, workers and finalists may change when it goes on.
IDENTITY = (
    "space",
    "overrides",
    "devices",
    "runtime",
    "dtype",
    "workload",
    "objectives",
    "constraints",
    "seed",
    "sampler",
    "anchors",
    "data",
    "storage",
    "start_from",
    "candidates",
)


def _go_on_otherwise(config: SearchConfig, made: RunFolder) -> None:
    """Notes what changes when a run goes on. Raises: RunError for what must not."""
    import yaml

    from nas import config as configs
    from nas import inputs, run_folder
    from nas.errors import RunError

    before, now = (yaml.safe_load(configs.dump(each)) for each in (configs.load(made.config_file, {}, []), config))
    begun, asked = inputs.fingerprints(before), inputs.fingerprints(now)
    for name in IDENTITY:
        if begun[name] != asked[name]:
            raise RunError(
                f"{made.path} was searched with {name}={begun[name]!r}, but --resume got {asked[name]!r}; "
                f"give the same, or another --study without --resume"
            )
    noted = yaml.safe_load(made.config_file.read_text(encoding="utf-8"))
    changed = {name: value for name, value in now.items() if name not in (*IDENTITY, "study", "out")}
    made.write(run_folder.CONFIG, yaml.safe_dump({**noted, **changed}, sort_keys=False))


def go_on(config: SearchConfig, made: RunFolder, *, json_: bool, quiet: bool = False) -> None:
    """Runs it with a listener that talks on stderr, then prints the front."""
    import search_spaces
    from nas import config as configs
    from nas.search.run import run
    from nas.search.session import Listener

    say = (lambda text: None) if quiet else _say
    say(
        f"study        {made.study}: {config.trials} trials, sampler {config.sampler}, "
        f"workers {config.workers}, seed {config.seed}"
    )
    space = search_spaces.load(config.space, dict(config.overrides))
    say(f"space        {space.name}: {space.extent}")
    say(f"devices      {', '.join(made.devices)}")
    say(f"files        {made.path}")
    say(f"storage      {configs.shown_storage(config.storage or made.default_storage)}")
    say(f"dashboard    nas dashboard {made.path}")
    with _Progress(quiet) as progress:
        listener = Listener(say=progress.say if not quiet else say, progress=progress.step, trial=progress.trial)
        try:
            run(config, made, listener)
        except KeyboardInterrupt:
            progress.close()
            say(f"interrupted; what is known is written. Go on with: nas resume {made.path}")
            sys.exit(130)
    _result(config, made, json_=json_, say=say)


def _result(config: SearchConfig, made: RunFolder, *, json_: bool, say: Any) -> None:
    from cli.report import print_front
    from nas import report

    document = report.document(made)
    if json_:
        import json

        print(json.dumps(document, indent=2))
        return
    print_front(document, out())
    say(f"report       {made.path / 'report.html'}")
    if not document["front"] and document["counts"]["failed"]:
        say(f"next         nas report {made.path} --failures")
    elif (made.path / "export").is_dir():
        say(f"next         nas ask {made.path / 'export'} {_example(config)}")
    elif document["request"]["seconds"] and config.data is None:
        again = f"nas search {made.config_file} --from {made.path} --study NAME --finalists 3"
        say(f"next         {again} --data FOLDER")
    else:
        say(f"next         nas train {made.path}")


def _example(config: SearchConfig) -> str:
    """A file and a question of the kind that the run trains on."""
    from nas.export import ASKED
    from nas.train import own_data

    if config.data is None:
        return f'IMAGE "{ASKED}"'
    return " ".join(shlex.quote(str(part)) for part in own_data.example(Path(config.data)))


def _say(text: str) -> None:
    talk().print(text, markup=False, highlight=False, soft_wrap=True)


class _Progress:
    """A live bar on a terminal, a line a trial elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.quiet = quiet
        self.live = talk().is_terminal and not quiet
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=talk(), transient=True,
        )  # fmt: skip
        self.tasks: dict[str, Any] = {}
        self.quarters: dict[str, int] = {}  # what was last said of each stage, where there is no live bar
        self.counts = {"complete": 0, "failed": 0, "infeasible": 0}

    def __enter__(self) -> _Progress:
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.live:
            self.bar.stop()

    def say(self, text: str) -> None:
        if self.live:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            _say(text)

    def step(self, what: str, done: int, of: int) -> None:
        if self.live:
            if what not in self.tasks:
                self.tasks[what] = self.bar.add_task(what, total=of)
            self.bar.update(self.tasks[what], completed=done, total=of, visible=done < of)
        elif not self.quiet and done and (quarter := 4 * done // of) != self.quarters.get(what, 0):
            self.quarters[what] = quarter
            _say(f"{what} {done}/{of}")

    def trial(self, evaluation: Evaluation, done: int, of: int) -> None:
        self.counts[evaluation.status] += 1
        if self.live:
            self.step(f"trials ({self.counts['failed']} failed)", done, of)
        elif not self.quiet:
            _say(f"trial {done:>4}/{of}  {_line(evaluation)}")


def _line(evaluation: Evaluation) -> str:
    from search_spaces import Candidate

    shown = f"{evaluation.key}  {Candidate.model_validate(evaluation.candidate)}"
    if evaluation.error:
        return f"{shown}  FAILED: {evaluation.error}"
    assert evaluation.quality is not None
    several = len(evaluation.latency) > 1
    latency = ", ".join(
        f"{one.latency_ms:.0f} ms {f'on {device} ' if several else ''}{one.label}"
        for device, one in sorted(evaluation.latency.items())
    )
    return (
        f"{shown}  quality {evaluation.quality.value:.3g} {evaluation.quality.label}  "
        f"latency {latency}  {evaluation.wall_s:.1f} s"
    )
