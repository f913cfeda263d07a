"""Expected against taken time of searches: `NAS_CACHE=FOLDER python bench/search/estimate.py [SHAPE ...]`.

Searches of `micro` and `pocket` on an estimated device, two of them on folders of own data, and two on this machine, whose
blocks are measured and whose finalists are timed end to end. By the clock: of a quiet machine, for two busy processes slow
each other down. The pace that earlier searches left in the cache folder is used and learnt as in any search. What a
search says goes to stderr, each line with the seconds since the bench began.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import hardware_profiles
from nas import config as configs
from nas import run_folder
from nas.config import SearchConfig
from nas.search.run import run
from nas.search.session import Listener
from nas.store import Store
from nas.train import data as vqa

DEVICE = "raspberry-pi-5-8gb"
SHAPES: dict[str, dict[str, Any]] = {
    "finalists": {"space": "micro", "trials": 40, "finalists": 2, "train_steps": 60, "train_images": 200},
    "anchors": {"space": "micro", "trials": 20, "anchors": 6, "finalists": 2, "train_steps": 60, "train_images": 200},
    "rungs": {"space": "micro", "trials": 20, "finalists": 1, "rungs": 3, "train_steps": 60, "train_images": 200},
    "pocket": {"space": "pocket", "trials": 20, "finalists": 2, "train_steps": 20, "train_images": 60},
    "own-data": {"space": "micro", "trials": 10, "finalists": 2, "train_steps": 60, "data": "500 files"},
    "more-data": {"space": "micro", "trials": 10, "finalists": 2, "train_steps": 60, "data": "3000 files"},
}
SHAPES |= {f"{name}-here": {**SHAPES[name], "devices": ["local"]} for name in ("finalists", "pocket")}
BEGUN = time.monotonic()


def own_data(folder: Path, files: int) -> None:
    """Pictures of easy-vqa with their questions, as a user would give them."""
    known = vqa.load(train_images=files, test_images=1).train
    entries = []
    for place, picture in enumerate(known.images):
        shutil.copy(picture, folder / f"{place}.png")
        asked = [(one.text, one.answer) for one in known.questions if one.image == place]
        said = [
            {"from": who, "value": text} for turn in asked for who, text in zip(("human", "gpt"), turn, strict=True)
        ]
        entries.append({"image": f"{place}.png", "conversations": said})
    (folder / "questions.json").write_text(json.dumps(entries), encoding="utf-8")


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", file=sys.stderr, flush=True)


def main() -> None:
    for name in sys.argv[1:] or SHAPES:
        with tempfile.TemporaryDirectory() as out, tempfile.TemporaryDirectory() as data:
            shape = dict(SHAPES[name])
            if "data" in shape:
                own_data(Path(data), int(shape["data"].split()[0]))
                shape["data"] = data
            config = SearchConfig.model_validate(
                {"devices": [DEVICE], "constraints": [], "study": name, "out": out, **shape}
            )
            folder = run_folder.create(Path(out), name)
            folder.write(run_folder.CONFIG, configs.dump(config))
            profiles = [hardware_profiles.load(one) for one in config.devices]
            for profile in profiles:
                folder.write(f"devices/{profile.id}.yaml", hardware_profiles.dump(profile))
            run(config, folder, Listener(say=say))
            with closing(Store(folder.default_storage)) as store:
                found = json.loads(store.meta(f"time:{name}") or "null")
                blocks = {one.id: json.loads(store.meta(f"time:blocks:{one.id}") or "null") for one in profiles}
        parts = {f"blocks of {one}": pair for one, pair in blocks.items() if pair}
        parts |= dict(zip(("trials", "trainings"), zip(*found.values(), strict=True), strict=True))
        for part, (told_s, took_s) in parts.items():
            factor = took_s / told_s
            print(f"{name:15} {part:26} {told_s:6.1f} s expected, {took_s:6.1f} s taken: {factor:.2f}", flush=True)


if __name__ == "__main__":
    main()
