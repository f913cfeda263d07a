"""The calibrated model finds a device's rates, owns its error, and knows where it has not been."""

from __future__ import annotations

import numpy as np
import pytest

from nas.latency.calibrated import CalibratedModel, fit, spread
from nas.latency.spread import apart_in_each

NAMES = ("one", "flops", "bytes")
RATES = np.array([0.5, 2.0, 0.3])


def device(count: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A device whose time is exactly of the model's form, but for its noise."""
    generator = np.random.default_rng(seed)
    features = np.c_[np.ones(count), 10 ** generator.uniform(-1, 2, (count, 2))]
    return features, features @ RATES * np.exp(noise * generator.normal(size=count))


def test_rates_are_recovered_from_exact_points() -> None:
    features, times = device(20, 0.0, 0)
    assert fit(NAMES, features, times).coefficients == pytest.approx(RATES.tolist(), rel=1e-6)


def test_no_rate_is_ever_negative() -> None:
    features, times = device(8, 1.0, 3)
    assert min(fit(NAMES, features, times).coefficients) >= 0


def test_the_interval_holds_about_eighty_percent_of_new_points() -> None:
    inside = []
    for seed in range(40):
        model = fit(NAMES, *device(20, 0.2, seed))
        features, times = device(200, 0.2, 1000 + seed)
        inside += [p.low <= t <= p.high for p, t in zip(model.predict(features), times, strict=True)]
    assert 0.75 <= np.mean(inside) <= 0.92


def test_points_outside_the_measured_ranges_are_flagged() -> None:
    model = fit(NAMES, *device(20, 0.1, 0))
    inside, outside = model.predict([[1, 10, 10], [1, 10, 1e6]])
    assert (inside.extrapolated, outside.extrapolated) == (False, True)


def test_coefficients_survive_json() -> None:
    model = fit(NAMES, *device(20, 0.1, 0))
    assert CalibratedModel.from_json(model.to_json()) == model


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 measured points, but got 4"):
        fit(NAMES, *device(4, 0.1, 0))


def test_spread_points_are_different_and_reach_the_ends() -> None:
    features, _ = device(200, 0.0, 1)
    chosen = spread(features[:, 1:], 20)
    assert len(set(chosen)) == 20
    size = np.log(features[:, 1:]).sum(axis=1)
    assert {int(size.argmin()), int(size.argmax())} <= set(chosen)


def test_spread_points_stand_for_the_many_and_not_for_the_odd() -> None:
    """Of 190 like points and 10 odd ones far off, most of those chosen are like the many."""
    generator = np.random.default_rng(0)
    odd = 10 ** np.c_[generator.uniform(3, 4, 10), generator.uniform(-3, -2, 10)]
    points = np.r_[10 ** generator.uniform(0, 1, (190, 2)), odd]
    assert sum(index < 190 for index in spread(points, 20)) >= 12


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_points_are_all_chosen_once(count: int) -> None:
    chosen = spread(10 ** np.random.default_rng(2).uniform(0, 1, (5, 2)), count)
    assert len(chosen) == len(set(chosen)) == count


def test_equal_points_are_no_trouble() -> None:
    assert sorted(spread(np.ones((6, 2)), 6)) == [0, 1, 2, 3, 4, 5]


def test_points_that_are_ranked_differ_in_every_column() -> None:
    """Six of a grid of six by six share no row and no column; of two points in one place the rarer kind comes."""
    first, second, kind = np.meshgrid(np.arange(6.0), np.arange(6.0), np.arange(2.0))
    points, kinds = np.c_[first.ravel(), second.ravel()], kind.reshape(-1, 1)
    chosen = apart_in_each(points, kinds, 6)
    assert all(len(set(column)) == 6 for column in points[chosen].T)
    assert kinds[chosen].sum() == 3
    assert sorted(apart_in_each(points, kinds, 72)) == list(range(72))
