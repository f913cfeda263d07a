"""A fitted block's interval holds what its fellows, left out, say that it misses."""

from __future__ import annotations

import numpy as np
import pytest

from nas.latency.fitted import USUAL, usual_error


def test_an_error_reaches_as_far_down_as_up() -> None:
    for wrong in (1.5, 1 / 1.5):
        assert usual_error(np.array([1.0, 1.1, wrong])) == pytest.approx(0.5)


@pytest.mark.parametrize("points", [12, 40])
def test_the_next_one_lies_within_the_error_as_often_as_is_said(points: int) -> None:
    generator = np.random.default_rng(0)
    drawn = np.exp(generator.normal(0, 0.3, (4000, points + 1)))
    errors = np.array([usual_error(ratios) for ratios in drawn[:, 1:]])
    held = (drawn[:, 0] <= 1 + errors) & (drawn[:, 0] >= 1 / (1 + errors))
    assert USUAL - 0.02 < held.mean() < USUAL + 0.04
