"""The advance estimate of time follows the work that is asked for, and what earlier searches really took."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nas.config import SearchConfig
from nas.search.expectation import Expected, Material, Pace
from nas.search.latencies import blocks_s
from nas.search.problem import define
from nas.store import Store
from nas.train import data as vqa

DEVICE = "raspberry-pi-5-8gb"
MATERIAL = Material(files=200, held_out=50, questions=10, text_tokens=10)


def pace(cache: Store, **changes: object) -> Pace:
    fields: dict[str, object] = {"space": "micro", "devices": [DEVICE], "constraints": []}
    return Pace(define(SearchConfig.model_validate({**fields, **changes})), cache, 1.5, 1.5, MATERIAL)


def test_more_work_and_a_slower_machine_are_expected_to_take_longer(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        usual = pace(cache)
        space = usual.problem.space.candidates
        told = usual.expected(space)
        assert pace(cache, workers=2).expected(space).trials_s < told.trials_s
        assert pace(cache, trials=30).expected(space).trials_s < told.trials_s
        assert pace(cache, rungs=2).expected(space).trainings_s > 1.5 * told.trainings_s
        assert pace(cache, finalists=0).expected(space).trainings_s == 0
        slower = replace(usual, canary_ms=3.0, alone_ms=3.0).expected(space)
        assert slower.trainings_s == pytest.approx(2 * told.trainings_s) and slower.trials_s > told.trials_s
        assert pace(cache, train_steps=240).expected(space).trainings_s > 1.4 * told.trainings_s
        shallow, deep = (next(one for one in space if one.lm_depth == depth) for depth in (1, 6))
        assert usual.steps_s([deep], 120) > 2 * usual.steps_s([shallow], 120)


def test_trials_are_expected_to_take_what_is_built_for_their_proxies(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        usual = pace(cache, space="pocket")
        runs, counts = (pace(cache, space="pocket", proxies=[name]) for name in ("effective-rank", "params"))
        reads = pace(cache, space="pocket", proxies=["synflow"])
        space = usual.problem.space.candidates[::400]
        assert counts.trials_s(space) < runs.trials_s(space) < reads.trials_s(space)
        one = [space[0]]
        assert usual.trials_s(one * 2) < 1.9 * usual.trials_s(one)  # its encoder is run on the probe once
        large = pace(cache, space="laptop").problem.space.baseline_candidate  # whose encoder is not run at all
        assert usual.trials_s([large]) < 1


def test_a_larger_folder_of_data_is_expected_to_take_longer(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        few = pace(cache)
        many = replace(few, material=replace(MATERIAL, files=2000, held_out=500))
        space = few.problem.space.candidates
        assert many.expected(space).trainings_s > 1.5 * few.expected(space).trainings_s
        assert replace(few, material=None).expected(space).trainings_s == 0
    known = Material.of(vqa.load(train_images=40, test_images=10), hears=False)
    assert (known.files, known.held_out) == (40, 10) and known.questions > 5 and 5 < known.text_tokens < 20


def test_what_searches_took_is_learnt_and_the_latest_does_not_replace_the_others(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        first = pace(cache)
        space = first.problem.space.candidates

        def search(times_trials: float, times_trainings: float) -> Expected:
            told = pace(cache).expected(space)
            half = told.trials // 2, told.trials_s / 2 * times_trials  # as many as there was time for
            pace(cache).learn(told, *half, told.trainings, told.trainings_s * times_trainings)
            return told

        before = search(3.0, 0.5)
        after = search(1.0, 1.0)
        assert 2 < after.trials_s / before.trials_s < 3 and 0.5 < after.trainings_s / before.trainings_s < 0.7
        assert pace(cache).expected(space).trials_s == pytest.approx(after.trials_s)
        search(10.0, 1.0)
        assert 2 < pace(cache).expected(space).trials_s / after.trials_s < 5
        other = pace(cache, space="microvlm")
        assert other.expected(space).trials_s == pytest.approx(before.trials_s)
        told = first.expected(space)
        first.learn(told, 0, 1.0, 0, 0.0)
        assert pace(cache).expected(space) == told


def test_measuring_is_expected_to_take_what_its_blocks_take(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        problem = pace(cache).problem
        few, many = (problem.blocks(problem.space.candidates[:count]) for count in (1, 50))
        assert len(few) < len(many) and blocks_s(few, 1.0) < blocks_s(many, 1.0)
        assert blocks_s(many, 2.0) == pytest.approx(2 * blocks_s(many, 1.0))
        large = pace(cache, space="pocket").problem
        heavy = large.blocks([large.baseline])
        assert blocks_s(heavy, 1.0) / len(heavy) > 1.2 * blocks_s(many, 1.0) / len(many)
