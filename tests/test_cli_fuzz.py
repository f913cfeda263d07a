"""Whatever is in a file or an argument: success or one clean line, never a trace."""

from __future__ import annotations

import pytest
from fuzzed_inputs import INPUTS, Input, run_one
from hypothesis import HealthCheck, given, settings


@pytest.mark.filterwarnings("ignore")  # of libraries, on values that are then refused
@pytest.mark.parametrize("name", INPUTS)
def test_a_broken_input_is_refused_cleanly(name: str) -> None:
    @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(INPUTS[name])
    def examine(arguments: Input) -> None:
        outcome = run_one(arguments)
        assert outcome.is_clean, outcome.trace or outcome.said

    examine()
