"""How surely a design is on the front: right as often as told, where truth is an estimate with errors of known size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stored_runs import latency

from nas.pareto import front_mask
from nas.records import Quality
from nas.search.confidence import COMMON, PHASES, Z80, confidence, errors, in_logs, in_words

OBJECTIVES = ("quality", "latency_ms")
ESTIMATED = "estimated:datasheet"
WORLDS = 1500


def of_own(deviations: list[list[float]]) -> np.ndarray:
    """(n, objectives, 1 + PHASES) of errors that no two designs share."""
    own = np.array(deviations)
    return np.concatenate([own[..., None], np.zeros((*own.shape, PHASES))], axis=2)


def test_confidence_is_one_apart_and_a_coin_between_twins() -> None:
    apart = confidence(np.array([[1.0, 1], [2, 0], [0, 2]]), of_own([[1e-6, 1e-6]] * 3))
    assert apart.tolist() == [1, 1, 1]
    twins = confidence(np.array([[1.0, 0], [1, 0], [-9, -9]]), of_own([[0.1, 0]] * 3))
    assert twins[:2] == pytest.approx(0.5, abs=0.1) and twins[2] == 0
    assert [in_words(share) for share in (1, 0.6, 0.2)] == [
        "on the front", "probably on the front", "not told apart from neighbours",
    ]  # fmt: skip


def test_what_all_designs_share_leaves_the_front_as_it_is() -> None:
    gains = np.array([[1.0, -0.1], [2, -0.2], [3, -0.3], [2.5, -0.4]])
    shared = np.zeros((4, 2, 1 + PHASES))
    shared[:, 1, 1] = 5.0
    assert confidence(gains, shared).tolist() == [1, 1, 1, 0]
    assert confidence(gains, of_own([[0, 5.0]] * 4))[:2].max() < 0.5


def test_the_variance_of_an_estimate_is_that_of_its_interval() -> None:
    told = Quality(0.5, 0.4, 0.6, "predicted:prior")
    for metric in ("latency_ms", "ttft_ms", "tpot_ms", "vision_ms"):
        one = replace(latency(1.0, ESTIMATED), low_ms=5.0, high_ms=20.0)
        of_quality, of_latency = np.array(errors(["quality", metric], told, {"pi": one}))
        assert of_quality.tolist() == [pytest.approx(0.1 / Z80), 0, 0, 0]
        assert np.sqrt((of_latency**2).sum()) == pytest.approx(np.log(2) / Z80)
        assert (of_latency[1:] ** 2).sum() == pytest.approx(COMMON * (of_latency**2).sum())
    composed = errors(["latency_ms@here", "params"], told, {"here": latency(1.0)})
    assert composed[0][0] > 0 and composed[0][1:] == [0, 0, 0] and composed[1] == [0, 0, 0, 0]


def test_a_share_is_how_often_it_is_true_where_a_device_errs_in_each_phase_alike() -> None:
    generator = np.random.default_rng(3)
    count, factor = 12, 2.0
    seeing, quality = generator.uniform(0.1, 0.9, count), np.linspace(0.3, 0.7, count)
    total_ms = 100 * np.exp(4 * (quality - 0.5) + generator.normal(0, 0.5, count))
    designs = [
        replace(
            latency(1.0, ESTIMATED), preprocess_ms=0.0, projector_ms=0.0, prefill_ms=0.0, vision_ms=share * ms,
            tpot_ms=(1 - share) * ms / 7, low_ms=ms / factor, high_ms=ms * factor,
        )
        for share, ms in zip(seeing, total_ms, strict=True)
    ]  # fmt: skip
    told = [Quality(one, one - 0.05, one + 0.05, "predicted:prior") for one in quality]
    gains = in_logs(OBJECTIVES, [[q, -one.latency_ms] for q, one in zip(quality, designs, strict=True)])
    doubts = np.array([errors(OBJECTIVES, q, {"pi": one}) for q, one in zip(told, designs, strict=True)])

    true = np.zeros(count)
    borne = np.c_[seeing, 1 - seeing] / np.hypot(seeing, 1 - seeing)[:, None]
    for _ in range(WORLDS):
        device, own = borne @ generator.standard_normal(2), generator.standard_normal(count)
        off = np.log(factor) / Z80 * (np.sqrt(COMMON) * device + np.sqrt(1 - COMMON) * own)
        trained = quality + 0.05 / Z80 * generator.standard_normal(count)
        true += front_mask(np.c_[trained, -total_ms * np.exp(off)]) / WORLDS
    independent = confidence(gains, of_own(np.sqrt((doubts**2).sum(axis=2)).tolist()))
    assert true.min() < 0.1 and true.max() > 0.9
    assert np.abs(confidence(gains, doubts) - true).mean() < 0.05
    assert np.abs(independent - true).mean() > 0.07
