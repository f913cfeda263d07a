"""Shares of the datasheet: found again in made-up devices, honest on unseen ones, wide where little was seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from nas.cost_rows import Matrix
from nas.latency.share_fit import Observation, fit, left_out, widths
from nas.latency.shares import (
    NORMAL_80,
    Datasheet,
    Kind,
    PhaseWork,
    Shares,
    effects,
    family,
    roofline_ms,
    shipped,
)


def work(phase: str = "decode", size: float = 1.0, bits: float = 4.0) -> PhaseWork:
    """A language model of `size` billion weights."""
    tokens = 1.0 if phase == "decode" else 512.0
    return PhaseWork(phase, 2e9 * size * tokens, 1e9 * size * bits / 8, 0.0, tokens, bits, "llama.cpp")  # type: ignore[arg-type]


def sheet(kind: Kind = "gpu") -> Datasheet:
    return Datasheet(kind, 100e12, 500e9)


def made_up(seed: int, devices: int, kinds: tuple[Kind, ...] = ("gpu", "cpu")) -> list[Observation]:
    """Devices that reach half of the datasheet, times a factor of their own (sd 0.4) and of the run (0.15)."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(devices):
        own = 0.4 * generator.normal()
        for size in (2.0, 8.0, 70.0):
            on = sheet(kinds[number % len(kinds)])
            one = work(size=size)
            rest = own + 0.15 * generator.normal()
            rows.append(Observation(f"device {number}", one, on, 2 * roofline_ms(one, on) * float(np.exp(rest))))
    return rows


@dataclass(frozen=True)
class Fitted:
    """A fit to made-up devices, and its errors where each was left out."""

    rows: list[Observation]
    shares: Shares
    error: Matrix
    expected: Matrix


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    rows = made_up(0, 30)
    shares, state = fit(rows, "made up")
    return Fitted(rows, shares, *left_out(rows, state))


def test_the_roofline_is_the_longer_of_computing_and_moving() -> None:
    assert roofline_ms(work(size=1.0), sheet()) == pytest.approx(0.5e9 / 500e9 * 1e3)
    assert roofline_ms(work("prefill"), sheet()) == pytest.approx(2e9 * 512 / 100e12 * 1e3)


def test_a_quarter_of_the_threads_has_a_quarter_of_the_peak() -> None:
    full = work("prefill")
    assert roofline_ms(replace(full, threads_share=0.25), sheet("cpu")) == pytest.approx(
        4 * roofline_ms(full, sheet("cpu"))
    )


def test_the_share_and_both_spreads_are_found_again(fitted: Fitted) -> None:
    shares = fitted.shares
    (found,), _ = shares.estimate([work(size=8.0)], sheet())
    assert found.middle_ms / roofline_ms(work(size=8.0), sheet()) == pytest.approx(2.0, rel=0.25)
    spread = shares.spreads["decode/gpu"]
    assert 0.25 < np.hypot(spread.device, shares.shared_sd) < 0.55
    assert 0.1 < spread.rest < 0.2


def test_eighty_percent_intervals_hold_about_eighty_percent_of_new_devices(
    fitted: Fitted,
) -> None:
    width, kind_widths = widths(fitted.rows, fitted.error, fitted.expected)
    checked = replace(fitted.shares, width=width, kind_widths=kind_widths)
    inside = [
        found.low_ms <= row.ms <= found.high_ms
        for row in made_up(1, 200)
        for found in checked.estimate([row.work], row.sheet)[0]
    ]
    assert 0.72 <= np.mean(inside) <= 0.92


def test_a_class_that_errs_more_is_wider_and_the_more_so_the_more_devices_it_has() -> None:
    def found(devices: int) -> dict[Kind, float]:
        rows = made_up(0, devices)
        error = np.array([2.0 if row.sheet.kind == "cpu" else 1.0 for row in rows])
        return widths(rows, error, np.ones(len(rows)))[1]

    few, many = found(4), found(40)
    assert few["gpu"] <= 1 <= few["cpu"]
    assert many["cpu"] / many["gpu"] > 1.2 * few["cpu"] / few["gpu"]
    assert many["cpu"] / many["gpu"] < 2


def test_left_out_errors_are_larger_than_those_of_known_devices(
    fitted: Fitted,
) -> None:
    """A device that is left out differs by its own factor, which no other device tells."""
    assert np.std(fitted.error) > 0.25
    assert np.all(fitted.expected > 0.25)


def test_one_run_on_the_wrong_unit_hardly_widens_the_rest(fitted: Fitted) -> None:
    first, *others = fitted.rows
    broken, _ = fit([replace(first, ms=20 * first.ms), *others], "made up")
    (before,), _ = fitted.shares.estimate([work()], sheet())
    (after,), _ = broken.estimate([work()], sheet())
    assert after.log_sd < 1.25 * before.log_sd


def test_a_class_that_was_never_seen_is_wider_than_one_that_was() -> None:
    (seen,), _ = shipped().estimate([work(size=8.0)], sheet("gpu"))
    (unseen,), _ = shipped().estimate([work(size=8.0)], sheet("server_gpu"))
    assert unseen.log_sd > 1.2 * seen.log_sd


def test_phases_of_one_device_err_together_but_not_wholly() -> None:
    _, covariance = shipped().estimate([work("prefill", 8.0), work(size=8.0), work(size=8.0)], sheet())
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert 0 < correlation[0, 1] < correlation[1, 2] < 1


def test_an_effect_without_a_row_adds_its_prior_variance() -> None:
    known, named = work(size=8.0), replace(work(size=8.0), runtime="eager")
    missing = [name for name in effects(named, sheet("apple_gpu")) if name not in shipped().names]
    assert all(family(name) in shipped().prior_sd for name in missing)
    (first,), _ = shipped().estimate([replace(known, runtime="")], sheet("npu"))
    (second,), _ = shipped().estimate([replace(known, runtime="eager")], sheet("npu"))
    assert second.log_sd > first.log_sd


def test_coefficients_survive_json() -> None:
    text = shipped().to_json()
    again = Shares.from_json(text)
    assert again.to_json() == text
    (before,), _ = shipped().estimate([work()], sheet())
    (after,), _ = again.estimate([work()], sheet())
    assert after == before


def test_intervals_are_of_eighty_percent() -> None:
    (found,), _ = shipped().estimate([work()], sheet())
    assert found.high_ms / found.middle_ms == pytest.approx(np.exp(NORMAL_80 * found.log_sd))
    assert found.low_ms * found.high_ms == pytest.approx(found.middle_ms**2)


def test_the_shipped_model_knows_all_three_phases_and_names_its_source() -> None:
    assert {"vision", "prefill", "decode"} <= set(shipped().spreads)
    assert len(shipped().devices) > 30
    assert "bench/latency/estimates" in shipped().source
