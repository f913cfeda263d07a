"""Every proxy of every design of the micro-VLM benchmark, before training: a row a design, safe to stop.

    python bench/quality/score_microvlm.py [--limit N]       into proxies/reference/microvlm.proxies.jsonl
    python bench/quality/score_microvlm.py --again NAME ... [--batch real]   these proxies anew, of every design; the
                                                             rest stays; `all` for every proxy

`random` values are of the batch that a search uses (smooth random images, random text), `real` ones of 24 training
images of the benchmark with one question each. A pass that several proxies share is in the seconds of the first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path

import proxies
from search_spaces import Candidate

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "proxies" / "reference" / "microvlm.jsonl"
SCORES = TABLE.with_suffix(".proxies.jsonl")
IMAGES = 24
BATCHES = ["random", "real"]


@cache
def data():
    return SourceFileLoader("benchmark", str(ROOT / "bench" / "microvlm" / "run")).load_module().benchmark_data()


def start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    os.nice(5)


def score_row(fields: dict, names: list[str], batches: list[str]) -> dict:
    from nas.model import Processor, build
    from nas.quality.score import probe_batch, score
    from nas.train import features
    from nas.train.probe import question_batch

    candidate = Candidate(**fields)
    model, processor = build(candidate, seed=0), Processor.of(candidate)
    quiet = lambda *_: None  # noqa: E731
    pixels = features.pixels(model, processor, data().train, quiet)
    batch = question_batch(processor, data().train.questions, pixels, None, size=IMAGES)
    row: dict = {"key": candidate.key}
    for name in batches:
        shown = batch if name == "real" else probe_batch(model, 0)
        scores = score(model, shown, names)
        row[name] = {key: one.value for key, one in scores.items()}
        row[f"{name}_why"] = {key: one.reason for key, one in scores.items() if one.reason}
        row[f"{name}_seconds"] = {key: round(one.seconds, 4) for key, one in scores.items()}
    return row


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--limit", type=int, default=10**6)
    arguments.add_argument("--again", nargs="+", metavar="NAME", default=[])
    arguments.add_argument("--batch", nargs="+", choices=BATCHES, default=BATCHES)
    given = arguments.parse_args()
    designs = {row["key"]: row["candidate"] for row in map(json.loads, TABLE.read_text(encoding="utf-8").splitlines())}
    known = {}
    if SCORES.is_file():
        known = {row["key"]: row for row in map(json.loads, SCORES.read_text(encoding="utf-8").splitlines())}
    if given.again:
        names = proxies.names() if given.again == ["all"] else given.again
        scored = score_all([fields for key, fields in designs.items() if key in known], names, given.batch)
        changed = {row["key"]: replaced(known[row["key"]], row) for row in scored}
        SCORES.write_text("".join(json.dumps(changed[key]) + "\n" for key in known), encoding="utf-8")
        return
    left = [fields for key, fields in designs.items() if key not in known][: given.limit]
    with SCORES.open("a", encoding="utf-8") as file:
        for row in score_all(left, proxies.names(), BATCHES):
            file.write(json.dumps(row) + "\n")
            file.flush()


def score_all(designs: list[dict], names: list[str], batches: list[str]) -> Iterator[dict]:
    """A row a design, as they are done, two at a time."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=start_worker) as pool:
        for number, future in enumerate(
            as_completed([pool.submit(score_row, one, names, batches) for one in designs]), 1
        ):
            yield future.result()
            print(f"{number}/{len(designs)}", flush=True)


def replaced(old: dict, new: dict) -> dict:
    """The old row with what the new one says of its proxies."""
    for name in BATCHES:
        if name not in new:
            continue
        for part in (name, f"{name}_seconds"):
            old[part].update(new[part])
        reasons = {key: why for key, why in old[f"{name}_why"].items() if key not in new[name]}
        old[f"{name}_why"] = {**reasons, **new[f"{name}_why"]}
    return old


if __name__ == "__main__":
    main()
