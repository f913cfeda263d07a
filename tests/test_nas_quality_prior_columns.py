"""The prior as columns is the prior of each candidate."""

from __future__ import annotations

import random

import numpy as np
import pytest

import nas.workload
import search_spaces
from nas.cost import cost
from nas.cost_many import cost_of_codes
from nas.cost_rows import Rows
from nas.quality.prior import prior
from nas.quality.prior_columns import inside_columns, language_columns, seeing_columns


@pytest.mark.parametrize("name", ["micro", "pocket", "edge", "laptop", "video-edge", "full"])
def test_the_sides_of_a_design_make_its_prior(name: str) -> None:
    space, workload = search_spaces.load(name), nas.workload.load("video")
    numbers = space.draw_numbers(200, random.Random(1))
    codes = space.numbering.codes(numbers)
    rows, costs = Rows(space.domains, codes), cost_of_codes(space, codes, workload)
    slope, bonus = seeing_columns(rows, costs, space.baseline_candidate)
    level, height = language_columns(rows, costs, space.baseline_candidate)
    found = inside_columns(bonus + height - level * slope)
    expected = [prior(one, cost(one, workload)).value for one in space.numbered(numbers)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
