"""The advance estimate of time follows the work that is asked for, and what earlier searches really took."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nas.config import SearchConfig
from nas.latency.blocks import BlockSpec
from nas.latency.plan import STARTING_S, plan
from nas.search.exact import weigh
from nas.search.expectation import REFERENCE_LOOP_MS, Expected, Material, Pace, Speeds
from nas.search.problem import define
from nas.store import Store
from nas.train import data as vqa

DEVICE = "raspberry-pi-5-8gb"
MATERIAL = Material(files=200, held_out=50, questions=10, question_characters=30, answer_characters=4)
SPEEDS = Speeds(1.5, 1.5, REFERENCE_LOOP_MS)


def pace(cache: Store, **changes: object) -> Pace:
    fields: dict[str, object] = {"space": "micro", "devices": [DEVICE], "constraints": []}
    return Pace(define(SearchConfig.model_validate({**fields, **changes})), cache, SPEEDS, MATERIAL)


def test_more_work_and_a_slower_machine_are_expected_to_take_longer(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        usual = pace(cache)
        space = usual.problem.space.candidates
        told = usual.expected(space)
        assert pace(cache, workers=2).expected(space).trials_s < told.trials_s
        assert pace(cache, trials=30).expected(space).trials_s < told.trials_s
        assert pace(cache, rungs=2).expected(space).trainings_s > 1.5 * told.trainings_s
        assert pace(cache, finalists=0).expected(space).trainings_s == 0
        slower = replace(usual, speeds=Speeds(3.0, 3.0, 2 * REFERENCE_LOOP_MS)).expected(space)
        assert slower.trainings_s == pytest.approx(2 * told.trainings_s)
        assert slower.trials_s == pytest.approx(2 * told.trials_s)
        busy = replace(usual, speeds=Speeds(6.0, 1.5, REFERENCE_LOOP_MS)).expected(space)
        assert busy.trials_s == told.trials_s and busy.trainings_s > 1.5 * told.trainings_s
        longer = pace(cache, train_steps=2 * usual.problem.config.train_steps).expected(space)
        assert longer.trainings_s > 1.4 * told.trainings_s
        shallow, deep = (next(one for one in space if one.lm_depth == depth) for depth in (1, 6))
        assert usual.steps_s([deep], 120) > 2 * usual.steps_s([shallow], 120)


def test_trials_are_expected_to_take_what_is_built_for_their_proxies(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        usual = pace(cache, space="pocket")
        runs, counts = (pace(cache, space="pocket", proxies=[name]) for name in ("effective-rank", "params"))
        reads = pace(cache, space="pocket", proxies=["synflow"])
        space = usual.problem.space.candidates[::400]
        assert counts.trials_s(space) < runs.trials_s(space) < reads.trials_s(space)
        one = [usual.problem.baseline]
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
    assert (known.files, known.held_out) == (40, 10) and known.questions > 5
    assert 20 < known.question_characters < 40 and 2 < known.answer_characters < 9


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


def test_no_more_finalists_are_expected_than_the_front_has(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        few, most = pace(cache), pace(cache, finalists=400)
        space = few.problem.space.candidates
        front = weigh(most.problem, space).front
        told = most.expected(space)
        assert few.expected(space).trainings < told.trainings == len(front) < 400
        anchored = pace(cache, anchors=5, finalists=100)  # gain chooses among all that is allowed
        assert anchored.expected(space).trainings == 105


def test_weights_that_come_in_a_package_are_expected_to_be_unpacked_once(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        for space, packed_longer in (("pocket", True), ("micro", False)):
            kept = pace(cache, space=space)
            designs = kept.problem.space.candidates[::50]
            packed = replace(kept, packed=frozenset({"smollm2-135m"}))
            assert (packed.unpacking_s(designs) > 0) == packed_longer
            assert (packed.expected(designs).trainings_s > kept.expected(designs).trainings_s) == packed_longer
            assert packed.unpacking_s(designs) == packed.unpacking_s(designs[:1])


def test_text_of_bytes_and_a_large_vocabulary_lengthen_a_step(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        usual = pace(cache)
        one = usual.problem.space.candidates[:1]
        long = replace(usual, material=replace(MATERIAL, question_characters=120))
        assert long.steps_s(one, 10) > 3 * usual.steps_s(one, 10)  # the scores of attention grow with the square
        large = pace(cache, space="pocket")
        wordy = replace(large, material=replace(MATERIAL, question_characters=26, answer_characters=8))
        two = large.problem.space.candidates[:1]
        assert wordy.steps_s(two, 10) > 1.05 * large.steps_s(two, 10)  # as many tokens, more of them to be told apart


def test_measuring_is_expected_to_take_what_its_blocks_take(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        small, large = (pace(cache, space=name).problem for name in ("micro", "pocket"))
        few, many = (small.blocks(small.space.candidates[:count]) for count in (1, 50))

    def seconds(blocks: list[BlockSpec], canary_ms: float = 1.5, cache_mib: float = 32) -> float:
        return plan(blocks, (), None, canary_ms, cache_mib).seconds - STARTING_S

    assert seconds(few) < seconds(many)
    heavy = large.blocks([large.baseline])
    assert seconds(heavy) / len(heavy) > 2 * seconds(many) / len(many)
    assert seconds(many) < seconds(many, 3.0) < 1.25 * seconds(many)  # it is not products that take the time
    assert seconds(heavy, 3.0) > 1.25 * seconds(heavy)
    assert seconds(many, cache_mib=128) > 1.2 * seconds(many)  # as much more is read before samples
    assert plan(many, [block.key for block in many], None, 1.5).seconds == 0
