"""What each proxy of the trained micro-VLM benchmark says alone, beside params, and what it costs on `pocket`.

python bench/quality/each_proxy.py                   tau on `main`, all and within 10 % params; seconds there
python bench/quality/each_proxy.py --cost 20         seconds a candidate of the default set on `pocket`, one thread
python bench/quality/each_proxy.py --passes 20       seconds of all that share the pass on designs of main: alone, together
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from anchored import REFERENCE, rows

from nas import workload
from nas.cost import cost
from nas.quality.agreement import agreement, agreement_at_equal_cost

# By what they read: activations, the loss, gradients by weights, by layers' outputs, of each sample.
PASSES = [
    ["attention-confidence", "softmax-confidence", "naswot", "swap", "near", "meco", "w-pca", "block-influence",
     "az-expressivity", "az-progressivity"],
    ["calibration-loss"], ["grad-norm", "snip", "plain", "dss"], ["fisher"], ["gradsign", "zico"],
]  # fmt: skip


def signal() -> None:
    main = [row for row in rows() if row["set"] == "main"]
    lines = (REFERENCE / "microvlm.proxies.jsonl").read_text(encoding="utf-8").splitlines()
    known = {row["key"]: row for row in map(json.loads, lines)}
    truth = [row["truth"] for row in main]
    params = [float(cost(row["candidate"], workload.load("vqa-short")).params) for row in main]
    print(f"{len(main)} models of main; a random and a real batch; tau overall / within 10 % params; seconds in median")
    found = []
    for name in known[main[0]["key"]]["real"]:
        figures = []
        for kind in ("random", "real"):
            values = [known[row["key"]][kind].get(name) for row in main]
            kept = [i for i, value in enumerate(values) if value is not None]
            columns = [values[i] for i in kept], [truth[i] for i in kept], [params[i] for i in kept]
            figures += [
                agreement(*columns[:2]).kendall_tau or 0.0,
                agreement_at_equal_cost(*columns).kendall_tau or 0.0,
            ]
        seconds = float(np.median([known[row["key"]]["random_seconds"].get(name, 0.0) for row in main]))
        found.append((name, figures, seconds))
    for name, figures, seconds in sorted(found, key=lambda one: -abs(one[1][0])):
        print(f"{name:22} random {figures[0]:+.3f} / {figures[1]:+.3f}   real {figures[2]:+.3f} / {figures[3]:+.3f}   {seconds:.4f} s")  # fmt: skip


def pocket_cost(count: int) -> None:
    import torch

    from nas.model import build
    from nas.quality.gaussian import informative
    from nas.quality.score import DEFAULT, probe_batch, score
    from nas.quality.structure import Structure
    from search_spaces import load

    torch.set_num_threads(1)
    space = load("pocket").candidates
    whole, single = [], {name: [] for name in DEFAULT}
    for place in informative(Structure(space).features(space), count):
        model = build(space[place], seed=0)
        batch = probe_batch(model, 0)
        score(model, batch)  # the encoder's tokens are kept, as they are within a search
        start = time.perf_counter()
        scores = score(model, batch)
        whole.append(time.perf_counter() - start)
        for name, one in scores.items():
            single[name].append(one.seconds)
        print(f"{space[place]}: {whole[-1]:.3f} s", flush=True)
    print(
        f"default set on {count} candidates of pocket, one thread: median {np.median(whole):.3f} s, largest {max(whole):.3f} s"
    )
    for name, seconds in single.items():
        print(f"{name:22} median {np.median(seconds):.4f} s")


def passes(count: int) -> None:
    import torch

    from nas.model import build
    from nas.quality.score import probe_batch, score

    torch.set_num_threads(1)
    designs = [row["candidate"] for row in rows() if row["set"] == "main"][:count]
    names = [name for kind in PASSES for name in kind]
    ways = {"a pass each": [[name] for name in names], "a pass a kind": PASSES, "one pass": [names]}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for design in designs:
        model = build(design, seed=0)
        batch = probe_batch(model, 0)
        score(model, batch, names)  # imports, the encoder's tokens
        for way, parts in ways.items():
            start = time.perf_counter()
            for part in parts:
                score(model, batch, part)
            taken[way].append(time.perf_counter() - start)
    for way, seconds in taken.items():
        print(f"{len(names)} proxies of {count} designs of main, {way}: median {np.median(seconds):.3f} s")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cost", type=int, default=0)
    arguments.add_argument("--passes", type=int, default=0)
    given = arguments.parse_args()
    if given.passes:
        passes(given.passes)
    elif given.cost:
        pocket_cost(given.cost)
    else:
        signal()


if __name__ == "__main__":
    main()
