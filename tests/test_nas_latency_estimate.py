"""Datasheet estimates: ordered as the work is, inside their interval, and refused where a figure is missing."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import hardware_profiles
import nas.workload
import search_spaces
from cli.main import build_app
from hardware_profiles import HardwareProfile, ProfileError
from nas.cost_rows import Rows
from nas.errors import NotMeasuredError
from nas.latency.calibrated import CalibratedModel, fit
from nas.latency.estimate import PARTS, Setting, estimate
from nas.latency.estimate_many import Estimates
from nas.latency.terms import needed
from nas.latency.work import FEATURES, features

WORKLOAD = nas.workload.load("vqa-short")
POCKET = search_spaces.load("pocket")


def complete(name: str) -> bool:
    profile = hardware_profiles.load(name)
    return "fp32" in profile.compute.peak_tflops and profile.memory.bandwidth_gbps.value is not None


@pytest.mark.parametrize("name", [name for name in hardware_profiles.names() if complete(name)])
def test_a_device_with_its_figures_gives_an_interval_around_its_middle(name: str) -> None:
    found = estimate(POCKET.baseline_candidate, WORKLOAD, hardware_profiles.load(name))
    assert found.label == "estimated:datasheet"
    assert 0 < found.low_ms < found.latency_ms < found.high_ms


@pytest.mark.parametrize("name", [name for name in hardware_profiles.names() if not complete(name)])
def test_a_device_without_a_figure_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match="is null; give it a value"):
        estimate(POCKET.baseline_candidate, WORKLOAD, hardware_profiles.load(name))


def test_a_deeper_language_model_is_never_faster() -> None:
    device = hardware_profiles.load("raspberry-pi-5-8gb")
    base = POCKET.baseline_candidate
    found = [estimate(base.model_copy(update={"lm_depth": depth}), WORKLOAD, device) for depth in (2, 10, 30)]
    totals = [latency.latency_ms for latency in found]
    assert totals == sorted(totals) and totals[0] < totals[-1]


def pi_with(**estimator: dict[str, float]) -> HardwareProfile:
    fields = hardware_profiles.load("raspberry-pi-5-8gb").model_dump(mode="json", by_alias=True)
    return HardwareProfile.model_validate({**fields, "estimator": estimator})


def test_a_profiles_own_efficiency_is_taken_at_its_word() -> None:
    """Weights of 30 layers and the vocabulary, 538 MB, over 36 % of 17.07 GB/s: 87.5 ms, plus 730 launches of 7 us."""
    base = POCKET.baseline_candidate.model_copy(update={"lm_depth": 30})
    found = estimate(base, WORKLOAD, pi_with(eta_memory={"low": 0.3, "mid": 0.36, "high": 0.4}))
    assert found.tpot_ms == pytest.approx(538.1e6 / (0.36 * 17.07e9) * 1e3 + 730 * 7e-3, rel=0.02)


def test_an_own_efficiency_known_closely_narrows_the_interval() -> None:
    shares = {"low": 0.3, "mid": 0.36, "high": 0.4}
    own = estimate(POCKET.baseline_candidate, WORKLOAD, pi_with(eta_memory=shares, eta_compute=shares))
    found = estimate(POCKET.baseline_candidate, WORKLOAD, pi_with())
    assert own.high_ms / own.low_ms < 0.6 * found.high_ms / found.low_ms


def test_decode_of_a_deep_model_is_bound_by_the_bandwidth() -> None:
    base = POCKET.baseline_candidate.model_copy(update={"lm_depth": 30})
    found = estimate(base, WORKLOAD, pi_with())
    assert 0.25 < 538.1e6 / 17.07e9 * 1e3 / found.tpot_ms < 1  # share of the bandwidth


def test_a_smaller_dtype_moves_fewer_bytes() -> None:
    base = POCKET.baseline_candidate
    whole = estimate(base, WORKLOAD, pi_with(), setting=Setting("onnxruntime", "fp32"))
    small = estimate(base, WORKLOAD, pi_with(), setting=Setting("onnxruntime", "int8"))
    assert 0.2 < small.tpot_ms / whole.tpot_ms < 0.6


def test_an_eager_runtime_pays_for_starting_its_kernels() -> None:
    """On a fast device a small model's eager step is mostly launches; a compiled one has none counted."""
    device = hardware_profiles.load("rtx-4090")
    eager = estimate(POCKET.baseline_candidate, WORKLOAD, device, setting=Setting("torch-eager"))
    compiled = estimate(POCKET.baseline_candidate, WORKLOAD, device, setting=Setting("onnxruntime"))
    assert eager.tpot_ms > 1.5 * compiled.tpot_ms
    assert eager.extrapolated  # phases of well below what was published


def test_a_calibrated_estimate_says_so_and_flags_what_it_has_not_seen() -> None:
    candidate = POCKET.baseline_candidate
    shallow = candidate.model_copy(update={"lm_depth": 2, "encoder": "efficientnet-lite0", "resolution": 112})
    blocks = {b.key: b for c in (candidate, shallow) for b in needed(c, WORKLOAD)}.values()
    table = [features(block) for block in blocks]
    rates = [0.01, 1e-8, 2e-8, 5e-8, 1e-8, 2e-8, 1.0, 1e-5]
    model = fit(FEATURES, table, [sum(r * f for r, f in zip(rates, row, strict=True)) for row in table])
    found = estimate(candidate, WORKLOAD, hardware_profiles.load("rtx-4090"), model)
    assert found.label == "estimated:calibrated" and not found.extrapolated
    assert found.preprocess_ms == pytest.approx(1.0 + 1e-5 * candidate.resolution**2, rel=0.05)
    far = WORKLOAD.model_copy(update={"prompt_tokens": 2000})
    assert estimate(candidate, far, hardware_profiles.load("rtx-4090"), model).extrapolated


def test_a_device_without_its_figures_is_refused_by_name_of_the_figure() -> None:
    with pytest.raises(ProfileError, match=r"compute\.peak_tflops\.fp32 is null"):
        estimate(POCKET.baseline_candidate, WORKLOAD, hardware_profiles.detect())


def test_the_command_estimates_a_device_that_is_not_here(tmp_path: Path) -> None:
    file = tmp_path / "candidate.yaml"
    file.write_text(yaml.safe_dump(POCKET.baseline_candidate.to_dict()), encoding="utf-8")
    result = CliRunner().invoke(
        build_app(), ["latency", str(file), "--device", "rtx-4090", "--how", "estimated", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["label"] == "estimated:datasheet"


def test_overheads_of_the_profile_are_added_for_every_kernel_and_layer() -> None:
    fields = hardware_profiles.load("raspberry-pi-5-8gb").model_dump(mode="json", by_alias=True)

    def tpot_ms(**estimator: float) -> float:
        profile = HardwareProfile.model_validate(fields | {"estimator": estimator})
        return estimate(POCKET.baseline_candidate, WORKLOAD, profile).tpot_ms

    none = tpot_ms(op_overhead_us=0)
    assert tpot_ms(op_overhead_us=0, layer_overhead_us=1000) == pytest.approx(none + POCKET.baseline_candidate.lm_depth)
    assert tpot_ms(op_overhead_us=200) - none == pytest.approx(2 * (tpot_ms(op_overhead_us=100) - none))


@pytest.mark.parametrize(
    ("space", "workload", "setting"),
    [
        ("full", "vqa-short", Setting()), ("full", "video", Setting(dtype="int8")), ("edge", "multi-image", Setting()),
        ("audio-edge", "audio-clip", Setting()), ("pocket", "vqa-short", Setting("onnxruntime")),
    ],
)  # fmt: skip
def test_columns_of_middles_are_those_of_the_estimates_one_by_one(space: str, workload: str, setting: Setting) -> None:
    searched, asked = search_spaces.load(space), nas.workload.load(workload)
    numbers = searched.draw_numbers(60, random.Random(2))
    rows = Rows(searched.domains, searched.numbering.codes(numbers))
    profile = hardware_profiles.load("raspberry-pi-5-8gb")
    own = HardwareProfile.model_validate(
        profile.model_dump(mode="json", by_alias=True)
        | {"estimator": {"eta_memory": {"low": 0.3, "mid": 0.5, "high": 0.7}, "layer_overhead_us": 40}}
    )
    coefficients = tuple(1e-9 * (1 + place) for place in range(len(FEATURES)))
    model = CalibratedModel(FEATURES, coefficients, (0.0,) * len(FEATURES), (1e15,) * len(FEATURES), 0.8, 1.3, 20)
    for device, known in ((profile, None), (own, None), (profile, model)):
        columns = Estimates(rows, asked, device, known, setting)
        found = {part: columns.ms(part) for part in (*PARTS, "preprocess_ms")}
        for row, candidate in enumerate(searched.numbered(numbers)):
            try:
                one = estimate(candidate, asked, device, known, setting)
            except NotMeasuredError:
                continue
            assert [column[row] for column in found.values()] == pytest.approx([getattr(one, part) for part in found])
