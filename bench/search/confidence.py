"""How surely a design is on the front, against truth: `PYTHONPATH=bench/latency python bench/search/confidence.py CSV`.

CSV: published timings. Devices are left out as in bench/latency/estimates; of two runs of one phase, runtime, format and
unit on one device, how far apart their errors are, against their own intervals. Then latencies composed in
bench/latency/axes.json against whole requests. Then the trained micro-VLMs (microvlm.csv): quarters of the designs left
out are foretold from the rest, latency is estimated for a device, and truth is trained accuracy with composed latency;
all designs of a quarter, and DRAWN of them at a time. Last, what is said of predicted fronts. Two minutes of one core.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from estimates import leave_devices_out
from published import measured_here, rows

import hardware_profiles
from nas import workload
from nas.config import SearchConfig
from nas.latency.estimate import estimate
from nas.latency.shares import NORMAL_80
from nas.pareto import front_mask
from nas.quality.benchmark import Benchmark, trained
from nas.quality.gaussian import GaussianProcess
from nas.records import Latency, Quality
from nas.search.confidence import COMMON, DRAWS, Z80, confidence, errors, in_logs, in_words
from nas.search.exact import weigh
from nas.search.problem import define

HERE = Path(__file__).parent
DEVICES = ("raspberry-pi-5-8gb", "epyc-9654")  # the table's latencies are of an x86-64 server
SPACES = (("micro", "raspberry-pi-5-8gb"), ("pocket", "raspberry-pi-5-8gb"), ("edge", "jetson-orin-nano-8gb"))
OBJECTIVES = ("quality", "latency_ms")
NOW = "common by phase (now)"
ROUNDS, FOLDS, DRAWN, SUBSETS = 6, 4, 12, 8
EDGES = (0.0, 0.1, 0.5, 0.9, 1.01)


def published(file: Path) -> None:
    """Pairs of runs on one device: own share of the variance, and pairs held by their difference's 80 % interval."""
    known = rows(file)[0] + measured_here()
    error, half, _ = leave_devices_out(known)
    deviation = half / NORMAL_80
    like = [(row.device, row.work.phase, row.runtime, row.work.weight_bits, row.sheet.kind) for row in known]
    print("| phase | devices | pairs | own share | held, independent | held, as drawn |\n|---|---|---|---|---|---|")
    for phase in ("vision", "prefill", "decode", "all"):
        pairs = [
            (i, j)
            for i, j in combinations(range(len(known)), 2)
            if like[i] == like[j] and known[i].work != known[j].work and phase in (known[i].work.phase, "all")
        ]
        i, j = np.array(pairs).T
        own = (error[i] - error[j]) ** 2
        both = deviation[i] ** 2 + deviation[j] ** 2
        device = np.array([known[one].device for one in i])
        weight = np.array([1 / np.sum(device == one) for one in device])
        held = [np.average(own < Z80**2 * spread, weights=weight) for spread in (
            both, both - 2 * COMMON * deviation[i] * deviation[j]
        )]  # fmt: skip
        share = np.average(own, weights=weight) / np.average(both, weights=weight)
        print(f"| {phase} | {len(set(device))} | {len(i)} | {share:.2f} | {held[0]:.0%} | {held[1]:.0%} |")


def composed() -> None:
    """Own errors of composed latencies, beside the deviations that their intervals speak of."""
    known = json.loads((HERE.parent / "latency" / "axes.json").read_text(encoding="utf-8")).values()
    wrong = np.log([row["measured"]["latency_ms"] / row["composed"]["latency_ms"] for row in known])
    told = np.log([row["composed"]["high"] / row["composed"]["low"] for row in known]) / (2 * Z80)
    print(f"\ncomposed, {len(wrong)} designs: deviation {wrong.std(ddof=1):.1%}, interval's {np.median(told):.1%}")


def fronts(device: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(what was drawn how, shares, truth) of every front of designs that were left out."""
    table = {row["key"]: row for row in csv.DictReader((HERE / "microvlm.csv").open(encoding="utf-8"))}
    known = [(one, accuracy) for one, accuracy in zip(*trained(), strict=True) if one.key in table]
    designs, accuracy = [one for one, _ in known], np.array([one for _, one in known])
    here_ms = np.array([float(table[one.key]["latency_ms@here"]) for one in designs])
    request, profile = workload.load("vqa-short"), hardware_profiles.load(device)
    latency = [estimate(one, request, profile) for one in designs]
    generator = np.random.default_rng(1)
    for _ in range(ROUNDS):
        order = generator.permutation(len(designs))
        for fold in np.array_split(order, FOLDS):
            rest = np.setdiff1d(order, fold)
            left_out = [designs[place] for place in fold]
            benchmark = Benchmark(left_out, ([designs[place] for place in rest], accuracy[rest].tolist()))
            alike = correlations(benchmark.process, benchmark.structure.features(left_out))
            told = benchmark.predict(left_out)
            subsets = [generator.choice(len(fold), DRAWN, replace=False) for _ in range(SUBSETS)]
            for subset in (np.arange(len(fold)), *subsets):
                places = fold[subset]
                truth = front_mask(np.c_[accuracy[places], -here_ms[places]])
                quality = [told[place] for place in subset]
                size = "all of a quarter" if len(subset) == len(fold) else f"{DRAWN} designs"
                drawn = ways(quality, [latency[place] for place in places])
                for way, (gains, doubts) in drawn.items():
                    yield f"{size}, {way}", confidence(gains, doubts), truth
                yield f"{size}, quality jointly too", jointly(*drawn[NOW], alike[np.ix_(subset, subset)]), truth


def ways(quality: Sequence[Quality], latency: Sequence[Latency]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(gains, errors) of the same designs, as `confidence` takes them."""
    gains = np.array([[one.value, -each.latency_ms] for one, each in zip(quality, latency, strict=True)])
    logs = in_logs(OBJECTIVES, gains.tolist())
    now = np.array([errors(OBJECTIVES, one, {"": each}) for one, each in zip(quality, latency, strict=True)])
    apart = np.zeros_like(now)
    apart[..., 0] = np.sqrt((now**2).sum(axis=2))
    in_ms, of_quality = apart.copy(), apart.copy()
    in_ms[:, 1, 0] = [(one.high_ms - one.low_ms) / (2 * Z80) for one in latency]
    of_quality[:, 1] = 0
    return {
        "independent, in ms (before)": (gains, in_ms), "independent, in logarithms": (logs, apart), NOW: (logs, now),
        "latency without errors": (logs, of_quality),
    }  # fmt: skip


def correlations(process: GaussianProcess, features: np.ndarray) -> np.ndarray:
    """Of the errors of trainings, by the posterior, kernels mixed."""
    total = np.zeros((len(features), len(features)))
    for kernel, inverse, shares in zip(process.kernels, process.inverses, process.shares, strict=True):
        cross = kernel.between(features, process.features)
        total += shares.sum() * (kernel.observed(features) - cross @ inverse @ cross.T)
    deviation = np.sqrt(np.diag(total))
    return total / np.outer(deviation, deviation)


def jointly(gains: np.ndarray, doubts: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """As `confidence`, with errors of quality drawn from their joint posterior."""
    generator, root = np.random.default_rng(0), np.linalg.cholesky(alike + 1e-9 * np.eye(len(alike)))
    own, common, counts = doubts[..., 0], doubts[..., 1:], np.zeros(len(gains))
    for _ in range(DRAWS):
        errs = generator.standard_normal(gains.shape)
        errs[:, 0] = root @ errs[:, 0]
        shared = np.einsum("nof,of->no", common, generator.standard_normal(common.shape[1:]))
        counts += front_mask(gains + own * errs + shared)
    return counts / DRAWS


def judge(found: Iterator[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Of each way: Brier score, how many are on the front, and by what was told how many truly are."""
    by_way: dict[str, list[np.ndarray]] = {}
    for way, shares, truth in found:
        by_way.setdefault(way, []).append(np.c_[shares, truth])
    bands = [f"told {low:.0%} to {min(1, high):.0%}" for low, high in pairwise(EDGES)]
    print(f"| drawn | Brier | on the front, told / true | {' | '.join(bands)} |\n|{'---|' * (3 + len(bands))}")
    for way in sorted(by_way, key=lambda name: not name.startswith(str(DRAWN))):
        shares, truth = np.concatenate(by_way[way]).T
        inside = [(shares >= low) & (shares < high) for low, high in pairwise(EDGES)]
        cells = [f"{truth[one].mean():.0%} of {one.sum()}" if one.any() else "none" for one in inside]
        score = f"{np.mean((shares - truth) ** 2):.3f}"
        print(f"| {way} | {score} | {shares.sum():.0f} / {truth.sum():.0f} | {' | '.join(cells)} |")


def spaces() -> None:
    """What is said of the predicted front's designs, nothing trained and nothing measured."""
    print("\n| space | front | drawn | on the front | probably | not told apart | largest share |")
    print(f"|{'---|' * 7}")
    for name, device in SPACES:
        problem = define(SearchConfig(space=name, devices=[device], constraints=[]))
        weighed = weigh(problem, problem.space.survey)
        quality = [problem.quality(one) for one in weighed.candidates]
        latency = [problem.latency(one)[device] for one in weighed.candidates]
        for way, (gains, doubts) in ways(quality, latency).items():
            shares = confidence(gains, doubts)[weighed.front]
            said = [in_words(share) for share in shares]
            counts = [said.count(in_words(share)) for share in (1, 0.6, 0)]
            print(f"| {name} | {len(shares)} | {way} | {' | '.join(map(str, counts))} | {shares.max():.0%} |")


def main() -> None:
    published(Path(sys.argv[1]))
    composed()
    for device in DEVICES:
        print(f"\nlatencies estimated for {device}\n")
        judge(fronts(device))
    spaces()


if __name__ == "__main__":
    main()
