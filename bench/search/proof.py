"""The proof: the search against hand-picked designs and random ones, trained alike and measured in paired rounds.

    python bench/search/proof.py [--workload vqa-short] [--trials 60] [--train-steps 400] [--seeds 0 1 2] [--out proof]

Three designs of `pocket` that a careful engineer would pick by hand are stated in HAND below, before any search. The
search runs with anchors; as many random candidates as it had finalists are drawn from the same feasible set. All are
trained by one recipe to one budget with each seed, and measured end to end in the same rounds. It prints accuracy
(mean and range over seeds) against latency of each, the highest accuracy that each group reaches within each measured
latency, and the lowest latency at which each group reaches each accuracy. With another --workload the answer may change:
run it twice. Nine trainings a seed beside the search's own. It was not run yet.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np

import hardware_profiles
from nas import run_folder, workload
from nas.latency.device import Device
from nas.search.exact import weigh
from nas.search.problem import define
from nas.store import Store
from nas.train import data as vqa
from nas.train.finalists import train_finalist
from nas.train.recipe import Recipe
from search_spaces import Candidate

LM = {"lm": "smollm2-135m"}
# Stated before the search. The strong encoder with every layer and tokens merged; the usual middle; small and shallow.
HAND = {
    "hand: ViT, full depth": Candidate(encoder="dinov2-vits14", resolution=224, projector="mlp", compression="pixel-shuffle", compression_factor=4, lm_depth=30, **LM),
    "hand: CNN, half depth": Candidate(encoder="efficientnet-lite0", resolution=224, projector="mlp", compression="none", compression_factor=1, lm_depth=16, **LM),
    "hand: small, shallow": Candidate(encoder="efficientnet-lite0", resolution=160, projector="linear", compression="none", compression_factor=1, lm_depth=6, **LM),
}  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workload", default="vqa-short")
    arguments.add_argument("--trials", type=int, default=60)
    arguments.add_argument("--anchors", type=int, default=8)
    arguments.add_argument("--finalists", type=int, default=3)
    arguments.add_argument("--train-steps", type=int, default=400)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--out", type=Path, default=Path("proof"))
    given = arguments.parse_args()
    for name, candidate in HAND.items():
        print(f"{name}: {candidate}", flush=True)
    study = f"proof-{given.workload}"
    command = [
        sys.executable, "-m", "cli.main", "search", "--space", "pocket", "--workload", given.workload, "--study", study,
        "--out", str(given.out), "--trials", str(given.trials), "--anchors", str(given.anchors), "--finalists",
        str(given.finalists), "--train-steps", str(given.train_steps),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    folder = run_folder.find(str(given.out / study))
    found = json.loads((folder.path / "front.json").read_text(encoding="utf-8"))
    finalists = [entry for entry in found["front"] if entry["measured"]][: given.finalists]
    groups = dict(HAND)
    groups |= {f"search {place}": Candidate(**entry["candidate"]) for place, entry in enumerate(finalists, 1)}
    drawn = random.Random(0).sample(allowed(folder), len(finalists))
    groups |= {f"random {place}": candidate for place, candidate in enumerate(drawn, 1)}
    accuracy = {name: [trained(candidate, given, seed) for seed in given.seeds] for name, candidate in groups.items()}
    store = Store(f"sqlite:///{given.out}/proof.db")
    device = Device(hardware_profiles.detect(), store)
    timed = device.requests({one.key: one for one in groups.values()}, workload.load(given.workload))
    show(groups, accuracy, {name: timed[candidate.key].latency for name, candidate in groups.items()})


def allowed(folder: run_folder.RunFolder) -> list[Candidate]:
    """What the search was allowed to propose."""
    from nas import config as configs

    problem = define(configs.load(folder.config_file, {}, []), folder.path / "devices")
    store = Store(folder.default_storage)
    for name, profile in problem.profiles.items():
        problem.take_timings(name, Device(profile, store).known(problem.blocks(list(problem.space.survey))))
    return list(weigh(problem, problem.space.survey).candidates)


def trained(candidate: Candidate, given: argparse.Namespace, seed: int) -> float:
    """Accuracy on open questions; every design by the same recipe, data and budget."""
    data = vqa.load(train_images=1200, test_images=300)
    place = given.out / "trained" / f"{candidate.key}-{given.train_steps}-{seed}"
    recipe = Recipe(steps=given.train_steps, seed=seed)
    return train_finalist(candidate, recipe, data, place, keep_weights=False).accuracy_open


def show(groups: dict, accuracy: dict, latency: dict) -> None:
    for name, candidate in groups.items():
        values, one = accuracy[name], latency[name]
        print(f"{name:24} {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})  "
              f"{one.latency_ms:7.1f} ms [{one.low_ms:.1f}, {one.high_ms:.1f}]  {candidate}")  # fmt: skip
    kinds = ("search", "hand", "random")
    print("\nhighest accuracy within the latency of each hand-picked design")
    for name in HAND:
        bound = latency[name].latency_ms
        reached = {
            kind: [np.mean(accuracy[n]) for n in groups if n.startswith(kind) and latency[n].latency_ms <= bound]
            for kind in kinds
        }
        print(
            f"{bound:7.1f} ms  "
            + "  ".join(f"{kind} {max(v):.3f}" if v else f"{kind} none" for kind, v in reached.items())
        )
    print("\nlowest latency at the accuracy of each hand-picked design")
    for name in HAND:
        bound = np.mean(accuracy[name])
        reached = {
            kind: [latency[n].latency_ms for n in groups if n.startswith(kind) and np.mean(accuracy[n]) >= bound]
            for kind in kinds
        }
        print(
            f"{bound:.3f}  "
            + "  ".join(f"{kind} {min(v):.1f} ms" if v else f"{kind} none" for kind, v in reached.items())
        )


if __name__ == "__main__":
    main()
