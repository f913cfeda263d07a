"""Every proxy of every design of the micro-VLM benchmark, before training: a row a design, safe to stop.

    python bench/quality/score_microvlm.py [--limit N]       into proxies/reference/microvlm.proxies.jsonl

`random` values are of the batch that a search uses (smooth random images, random text), `real` ones of 24 training
images of the benchmark with one question each. A pass that several proxies share is in the seconds of the first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path

from search_spaces import Candidate

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "proxies" / "reference" / "microvlm.jsonl"
SCORES = TABLE.with_suffix(".proxies.jsonl")
IMAGES = 24


@cache
def data():
    return SourceFileLoader("benchmark", str(ROOT / "bench" / "microvlm" / "run")).load_module().benchmark_data()


def start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    os.nice(5)


def score_row(fields: dict) -> dict:
    import proxies
    from nas.model import Processor, build
    from nas.quality.score import probe_batch, score
    from nas.train import features
    from nas.train.probe import question_batch

    candidate = Candidate(**fields)
    model, processor = build(candidate, seed=0), Processor.of(candidate)
    quiet = lambda *_: None  # noqa: E731
    frozen = model.encoder_spec.weights is not None
    images = features.encoder_features(model, processor, data().train, 0, quiet) if frozen else None
    pixels = features.pixels(model, processor, data().train, quiet)
    batch = question_batch(processor, data().train.questions, pixels, images, size=IMAGES)
    row: dict = {"key": candidate.key}
    for name, shown in (("random", probe_batch(model, 0)), ("real", batch)):
        scores = score(model, shown, proxies.names())
        row[name] = {key: one.value for key, one in scores.items()}
        row[f"{name}_why"] = {key: one.reason for key, one in scores.items() if one.reason}
        row[f"{name}_seconds"] = {key: round(one.seconds, 4) for key, one in scores.items()}
    return row


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--limit", type=int, default=10**6)
    given = arguments.parse_args()
    designs = {row["key"]: row["candidate"] for row in map(json.loads, TABLE.read_text(encoding="utf-8").splitlines())}
    done = set()
    if SCORES.is_file():
        done = {json.loads(line)["key"] for line in SCORES.read_text(encoding="utf-8").splitlines()}
    left = [fields for key, fields in designs.items() if key not in done][: given.limit]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=start_worker) as pool, SCORES.open("a") as file:
        for number, future in enumerate(as_completed([pool.submit(score_row, fields) for fields in left]), 1):
            file.write(json.dumps(future.result()) + "\n")
            file.flush()
            print(f"{number}/{len(left)}", flush=True)


if __name__ == "__main__":
    main()
