"""The proof: the search against designs picked by hand and against random ones, trained alike, measured in paired rounds.

    python bench/search/proof.py [--workload vqa-short] [--out proof] [--only search|train|measure|show]

HAND holds three designs of `pocket` that a careful engineer would pick for `latency_ms <= 40% of baseline` on this
machine, stated before the search. The search trains anchors, fits its score on them and trains its finalists. As many
random designs that keep the limit as the search has trained are trained once; the best of them stays. It, the designs by
hand and `--kept` of the search's front are then trained by one recipe to one budget with each seed, and measured in the
same rounds.

With `--from RUN` a search for another workload takes the trainings over, so that only latency is new. Stages can be run
one by one: `search` and `train` need no quiet machine, `measure` does.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import hardware_profiles
from nas import config as configs
from nas import pareto, run_folder, workload
from nas.latency.device import Device
from nas.search.finalists import completed, trained_front
from nas.search.gate import feasible
from nas.search.problem import Problem, define
from nas.store import Store
from nas.train import data as vqa
from nas.train.finalists import train_finalist
from nas.train.recipe import Recipe
from search_spaces import Candidate

PARTS = {"lm": "smollm2-135m", "lm_layers": "influence"}
# Stated before the search: the pretrained ViT with merged tokens and the layers that fit; the usual CNN at full
# resolution with its tokens as they are; the same, smaller, with one matrix.
HAND = {
    "hand ViT": Candidate(encoder="dinov2-vits14", resolution=224, projector="mlp", compression="pixel-shuffle", compression_factor=4, lm_depth=6, **PARTS),
    "hand CNN": Candidate(encoder="efficientnet-lite0", resolution=224, projector="mlp", compression="none", compression_factor=1, lm_depth=6, **PARTS),
    "hand small": Candidate(encoder="efficientnet-lite0", resolution=160, projector="linear", compression="none", compression_factor=1, lm_depth=6, **PARTS),
}  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workload", default="vqa-short")
    arguments.add_argument("--trials", type=int, default=60)
    arguments.add_argument("--anchors", type=int, default=6)
    arguments.add_argument("--finalists", type=int, default=6)
    arguments.add_argument("--train-steps", type=int, default=240)
    arguments.add_argument("--train-images", type=int, default=1200)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--kept", type=int, default=3, help="designs of the search's front, spread over it")
    arguments.add_argument("--workers", type=int, default=2, help="trainings at a time; set OMP_NUM_THREADS=1")
    arguments.add_argument("--study", default="proof")
    arguments.add_argument("--from", dest="start_from")
    arguments.add_argument("--out", type=Path, default=Path("proof"))
    arguments.add_argument("--only", choices=["search", "train", "measure", "show"])
    given = arguments.parse_args()
    stages = [given.only] if given.only else ["search", "train", "measure", "show"]
    if "search" in stages:
        search(given)
    folder = run_folder.find(str(given.out / study(given)))
    groups = designs(given, folder)
    if "train" in stages:
        train(given, groups)
        train(given, chosen_at_random(given, folder))
    if "measure" in stages:
        measure(given, groups | chosen_at_random(given, folder))
    if "show" in stages:
        groups |= chosen_at_random(given, folder)
        trained = {name: [accuracy(given, one, seed) for seed in given.seeds] for name, one in groups.items()}
        show(groups, trained, json.loads(timings(given).read_text(encoding="utf-8")))


def train(given: argparse.Namespace, groups: dict[str, Candidate]) -> None:
    train_all(given, [(candidate, seed) for seed in given.seeds for candidate in groups.values()])
    for seed in given.seeds:
        for name, candidate in groups.items():
            print(f"{name:12} seed {seed}  {accuracy(given, candidate, seed):.3f}  {candidate}", flush=True)


def train_all(given: argparse.Namespace, wanted: list[tuple[Candidate, int]]) -> None:
    """What is not trained yet, `--workers` at a time, one thread each."""
    left = [(given, candidate, seed) for candidate, seed in wanted if not place(given, candidate.key, seed).is_file()]
    with get_context("spawn").Pool(given.workers) as pool:
        pool.starmap(accuracy, left, chunksize=1)


def study(given: argparse.Namespace) -> str:
    return f"{given.study}-{given.workload}"


def timings(given: argparse.Namespace) -> Path:
    path: Path = given.out / f"{given.workload}.json"
    return path


def search(given: argparse.Namespace) -> None:
    command = [
        sys.executable, "-m", "cli.main", "search", "--space", "pocket", "--workload", given.workload, "--study",
        study(given), "--out", str(given.out), "--trials", str(given.trials), "--anchors", str(given.anchors),
        "--finalists", str(given.finalists), "--set", f"train_steps={given.train_steps}", "--set",
        f"train_images={given.train_images}", "--set", "proxies=[params]",
    ]  # fmt: skip
    subprocess.run(command + (["--from", given.start_from] if given.start_from else []), check=True)


def designs(given: argparse.Namespace, folder: run_folder.RunFolder) -> dict[str, Candidate]:
    """The three by hand, and those kept of the search's trained front; its trainings, by its own seed, are taken over."""
    problem = known(folder)
    with closing(Store(folder.default_storage)) as store:
        trainings = store.trainings(folder.study)
        for key, one in trainings.items():
            if one.steps == given.train_steps:
                place(given, key, one.seed).parent.mkdir(parents=True, exist_ok=True)
                place(given, key, one.seed).write_text(json.dumps(one.accuracy_open), encoding="utf-8")
        found = list(trained_front(problem, completed(store.evaluations(folder.study)), trainings).values())
    kept = [found[at] for at in pareto.spread(given.kept, range(len(found)))]
    return HAND | {f"search {number}": one for number, one in enumerate(kept, 1)}


def chosen_at_random(given: argparse.Namespace, folder: run_folder.RunFolder) -> dict[str, Candidate]:
    """The best of as many as the search has trained, all by one seed, and what they reached.

    With `--from` those of that run, as far as they keep the limit here.
    """
    problem = known(folder)
    first = known(run_folder.find(given.start_from)) if given.start_from else problem
    with closing(Store(folder.default_storage)) as store:
        count = sum(one.steps == given.train_steps for one in store.trainings(folder.study).values())
    drawn = random.Random(0).sample(feasible(first, list(first.space.survey)), count)
    drawn = feasible(problem, drawn)
    train_all(given, [(candidate, given.seeds[0]) for candidate in drawn])
    for candidate in drawn:
        ms = problem.latency(candidate)[problem.devices[0]].latency_ms
        reached = accuracy(given, candidate, given.seeds[0])
        print(f"random       seed {given.seeds[0]}  {reached:.3f}  {ms:.1f} ms composed  {candidate}", flush=True)
    return {"random": max(drawn, key=lambda candidate: accuracy(given, candidate, given.seeds[0]))}


def known(folder: run_folder.RunFolder) -> Problem:
    """What the run searched, with the blocks that it measured."""
    problem = define(configs.load(folder.config_file, {}, []), folder.path / "devices")
    with closing(Store(folder.default_storage)) as store:
        for name, profile in problem.profiles.items():
            problem.take_timings(name, Device(profile, store).known(problem.blocks(list(problem.space.survey))))
    return problem


def place(given: argparse.Namespace, key: str, seed: int) -> Path:
    path: Path = given.out / "trained" / f"{key}-{given.train_steps}-{seed}.json"
    return path


def accuracy(given: argparse.Namespace, candidate: Candidate, seed: int) -> float:
    """On open questions; every design by the same recipe, data and budget."""
    file = place(given, candidate.key, seed)
    if not file.is_file():
        data = vqa.load(given.train_images, given.train_images // 4)
        recipe = Recipe(steps=given.train_steps, seed=seed)
        training = train_finalist(candidate, recipe, data, file.with_suffix(""), keep_weights=False)
        file.write_text(json.dumps(training.accuracy_open), encoding="utf-8")
    return float(json.loads(file.read_text(encoding="utf-8")))


def measure(given: argparse.Namespace, groups: dict[str, Candidate]) -> None:
    """End to end, all of them in the same rounds."""
    with closing(Store(f"sqlite:///{given.out}/proof.db")) as store:
        device = Device(hardware_profiles.detect(), store)
        found = device.requests({one.key: one for one in groups.values()}, workload.load(given.workload))
    kept = {name: found[one.key].latency for name, one in groups.items()}
    rows = {name: [one.latency_ms, one.low_ms, one.high_ms] for name, one in kept.items()}
    timings(given).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def show(groups: dict[str, Candidate], trained: dict[str, list[float]], latency: dict[str, list[float]]) -> None:
    """Every design, then each found against each by hand; a design's seeds speak of that design alone (Welch)."""
    from scipy.stats import ttest_1samp, ttest_ind

    mean = {name: float(np.mean(values)) for name, values in trained.items()}
    print(f"\n95 % intervals of means over {len(next(iter(trained.values())))} seeds, each by its own seeds")
    for name, candidate in groups.items():
        low, high = ttest_1samp(trained[name], 0.0).confidence_interval()
        ms, fastest, slowest = latency[name]
        print(
            f"{name:12} {mean[name]:.3f} [{low:.3f}, {min(high, 1):.3f}]  {ms:6.1f} ms [{fastest:.1f}, {slowest:.1f}]  {candidate}"
        )
    found = [name for name in groups if name.startswith("search")]
    for name in [*HAND, "random"]:
        print(f"\nagainst {name}: {mean[name]:.3f} in {latency[name][0]:.1f} ms")
        for one in found if name == "random" else [*found, "random"]:
            low, high = ttest_ind(trained[one], trained[name], equal_var=False).confidence_interval()
            share, least, most = (100 * value / latency[name][0] for value in latency[one])
            print(
                f"  {one:10} accuracy {mean[one] - mean[name]:+.3f} [{low:+.3f}, {high:+.3f}] "
                f"in {share:.0f} % [{least:.0f}, {most:.0f}] of the latency"
            )


if __name__ == "__main__":
    main()
