"""The advance estimate of time follows the work that is asked for, and what an earlier search really took."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from stored_runs import evaluation, training

from nas.config import SearchConfig
from nas.search.expectation import Pace, expected_s, in_words
from nas.search.problem import define
from nas.store import Store

DEVICE = "raspberry-pi-5-8gb"


def pace(cache: Store, **changes: object) -> Pace:
    fields: dict[str, object] = {"space": "micro", "devices": [DEVICE], "constraints": []}
    return Pace(define(SearchConfig.model_validate({**fields, **changes})), cache, canary_ms=1.5)


def test_more_work_and_a_slower_machine_are_expected_to_take_longer(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        usual = pace(cache)
        space = usual.problem.space.candidates
        trials_s, trainings_s = expected_s(usual, space)
        assert expected_s(pace(cache, workers=2), space)[0] == pytest.approx(trials_s / 2)
        assert expected_s(pace(cache, rungs=2), space)[1] == pytest.approx(2 * trainings_s)
        assert expected_s(pace(cache, trials=10_000), space)[0] == pytest.approx(usual.trials_s(space))
        slower = replace(usual, canary_ms=3.0)
        assert slower.trainings_s(space[:3], 120) == pytest.approx(2 * usual.trainings_s(space[:3], 120))
        assert usual.trainings_s(space[:1], 240) > 1.5 * usual.trainings_s(space[:1], 120)
        shallow, deep = (next(one for one in space if one.lm_depth == depth) for depth in (1, 6))
        assert usual.trainings_s([deep], 120) > 2 * usual.trainings_s([shallow], 120)


def test_what_a_search_took_is_what_the_next_of_its_kind_is_expected_to_take(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path}/cache.db")) as cache:
        first = pace(cache)
        chosen = first.problem.space.candidates[:6]
        ran = [replace(evaluation(one, DEVICE, 5.0), wall_s=3.0) for one in chosen]
        trained = {one.key: replace(training(one.key, 0.5), steps=120, train_s=30.0) for one in chosen[:2]}
        assert first.learn(ran, trained) == (18.0, 60.0)
        again = pace(cache)
        assert again.trials_s(chosen) == pytest.approx(18.0)
        assert 60 < again.trainings_s(chosen[:2], 120) < 120  # with its tests, which no record holds
        assert pace(cache, space="microvlm").trials_s(chosen) != pytest.approx(18.0)
        assert first.learn([], {}) == (0, 0) and pace(cache).trials_s(chosen) == pytest.approx(18.0)


def test_seconds_are_told_in_words() -> None:
    assert [in_words(seconds) for seconds in (40.2, 360)] == ["40 s", "6 min"]
