"""Other forms of the anchored score, on models of `main` that are no anchors: does one rank better than what ships?

    python bench/quality/forms.py [--draws 30] [--table FILE]

Truth is the mean over all kinds of question. Twelve anchors of a random half.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from anchored import SHIPPED, blind_by_kind, rows

from nas import workload
from nas.cost import cost
from nas.quality.agreement import agreement, agreement_at_equal_cost
from nas.quality.gaussian import GaussianProcess, informative
from nas.quality.structure import Structure
from search_spaces import Candidate, load
from search_spaces.catalogue import encoder, language_model

COUNT = 12
Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def direct(known: np.ndarray, truths: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """truths: (anchors, kinds)."""
    return GaussianProcess(known, truths.mean(axis=1).tolist()).predict(asked)[0]


def straight(known: np.ndarray, truths: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """No warp."""
    return GaussianProcess(known, truths.mean(axis=1).tolist(), (1.0,)).predict(asked)[0]


def each_kind(known: np.ndarray, truths: np.ndarray, asked: np.ndarray) -> np.ndarray:
    return np.mean([GaussianProcess(known, one.tolist()).predict(asked)[0] for one in truths.T], axis=0)


def root(known: np.ndarray, truths: np.ndarray, asked: np.ndarray) -> np.ndarray:
    return GaussianProcess(known, np.sqrt(np.maximum(truths.mean(axis=1), 0)).tolist()).predict(asked)[0]


def ranks(known: np.ndarray, truths: np.ndarray, asked: np.ndarray) -> np.ndarray:
    order = truths.mean(axis=1).argsort().argsort().astype(float)
    return GaussianProcess(known, order.tolist()).predict(asked)[0]


def further(candidate: Candidate) -> dict[str, float]:
    """Features that the structure does not have."""
    vision, lm = encoder(candidate.encoder), language_model(candidate.lm)
    shuffled = candidate.compression_factor if candidate.compression == "pixel-shuffle" else 1
    return {
        "compression factor": math.log2(candidate.compression_factor),
        "resolution": math.log2(candidate.resolution),
        "three layers or more": float(candidate.lm_depth >= 3),
        "channels that enter the projector": math.log2(vision.width * shuffled),
        "one visual token": float(vision.tokens(candidate.resolution, candidate.compression_factor) == 1),
        "depth x width": math.log2(candidate.lm_depth * lm.hidden),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=30)
    arguments.add_argument("--table", type=Path, default=SHIPPED)
    given = arguments.parse_args()
    blind = blind_by_kind(given.table)
    table = [row for row in rows(given.table) if row["set"] == "main"]
    candidates = [row["candidate"] for row in table]
    params = [float(cost(one, workload.load("vqa-short")).params) for one in candidates]
    structure = Structure(load("microvlm").candidates)
    base = structure.features(candidates)
    sizes = len(structure.mean)
    forms: dict[str, tuple[np.ndarray, Predict]] = {
        "as shipped": (base, direct), "without warps": (base, straight), "a process a kind": (base, each_kind), "square root": (base, root),
        "ranks": (base, ranks),
    }  # fmt: skip
    for name in further(candidates[0]):
        column = np.array([further(one)[name] for one in candidates])
        forms[f"with {name}"] = (np.c_[base, (column - column.mean()) / column.std()], direct)
    for weight in (0.5, 1.5):
        forms[f"parts x {weight}"] = (np.c_[base[:, :sizes], weight * base[:, sizes:]], direct)
    truths = np.array([[(row["accuracy"][k] - low) / (1 - low) for k, low in blind.items()] for row in table])
    for name, (features, predict) in forms.items():
        show(name, base, features, truths, params, predict, given.draws)


def show(
    name: str, base: np.ndarray, features: np.ndarray, truths: np.ndarray, params: list[float], predict: Predict, draws: int
) -> None:  # fmt: skip
    rhos, bands = [], []
    for number in range(draws):
        half = random.Random(number).sample(range(len(base)), len(base) // 2)
        chosen = [half[place] for place in informative(base[half], COUNT)]
        held = [place for place in range(len(base)) if place not in chosen]
        guesses = predict(features[chosen], truths[chosen], features[held]).tolist()
        real = truths[held].mean(axis=1).tolist()
        rhos.append(agreement(guesses, real).spearman_rho or 0.0)
        bands.append(agreement_at_equal_cost(guesses, real, [params[place] for place in held]).kendall_tau or 0.0)
    error = np.std(rhos) / math.sqrt(draws)
    print(f"{name:40} rho {np.mean(rhos):+.3f} +- {error:.3f}  tau at equal params {np.mean(bands):+.3f}", flush=True)


if __name__ == "__main__":
    main()
