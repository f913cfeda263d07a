"""A search in process, on devices that are estimated: it solves exactly first, and a warm one builds nothing again."""

from __future__ import annotations

import json
from pathlib import Path

import hardware_profiles
from nas import config as configs
from nas import report, run_folder
from nas.config import SearchConfig
from nas.records import Evaluation
from nas.run_folder import RunFolder
from nas.search.exact import weigh
from nas.search.problem import define
from nas.search.run import Listener, run


def searched(out: Path, study: str, device: str, **changes: object) -> tuple[RunFolder, list[str], list[Evaluation]]:
    fields: dict[str, object] = {
        "space": "micro", "devices": [device], "constraints": [], "trials": 6, "finalists": 0, "study": study,
        "out": str(out), "proxies": ["params", "flops"],
    }  # fmt: skip
    config = SearchConfig.model_validate({**fields, **changes})
    folder = run_folder.create(out, study)
    folder.write(run_folder.CONFIG, configs.dump(config))
    folder.write(f"devices/{device}.yaml", hardware_profiles.dump(hardware_profiles.load(device)))
    said, finished = list[str](), list[Evaluation]()
    run(config, folder, Listener(say=said.append, trial=lambda evaluation, done, of: finished.append(evaluation)))
    return folder, said, finished


def test_a_search_starts_on_the_exact_front_and_a_warm_one_builds_nothing_again(tmp_path: Path) -> None:
    first, said, finished = searched(tmp_path, "first", "raspberry-pi-5-8gb")
    problem = define(SearchConfig(space="micro", devices=["raspberry-pi-5-8gb"], constraints=[]))
    weighed = weigh(problem, problem.space.candidates)
    exact = {weighed.candidates[place].key for place in weighed.front}
    assert any(line.startswith("exact") and "every feasible candidate is weighed" in line for line in said)
    assert len(exact & {one.key for one in finished}) >= 3  # half of the trials, beside the landmarks
    found = json.loads((first.path / "front.json").read_text(encoding="utf-8"))
    assert set(found["exact"]["front"]) == exact and found["exact"]["weighed"] == problem.space.size
    assert all(0 <= entry["confidence"]["share"] <= 1 for entry in found["front"])

    second, said, again = searched(tmp_path, "second", "jetson-orin-nano-8gb", start_from=str(first.path))
    assert any("6 with their scores" in line for line in said)
    known = {one.key: one for one in finished}
    taken = [one for one in again if one.key in known]
    assert taken and all(one.wall_s == 0 and one.proxies == known[one.key].proxies for one in taken)
    assert all(set(one.latency) == {"jetson-orin-nano-8gb"} for one in again)
    assert report.document(second)["counts"]["complete"] == 6
