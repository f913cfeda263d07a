import json
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr, yeojohnson
from sklearn.preprocessing import PowerTransformer

from nas.quality.anchored import Anchored
from nas.quality.gaussian import CENTRE, GaussianProcess, informative
from nas.quality.published import features as published_features
from nas.quality.published import score
from nas.quality.structure import Structure, rank_budget
from nas.quality.warp import POWERS, Warp
from search_spaces import Candidate, load
from search_spaces.catalogue import language_model

REFERENCE = Path(__file__).parents[1] / "proxies" / "reference"
SPACE = load("microvlm").candidates


def trained() -> list[tuple[Candidate, float]]:
    """The benchmark's main set with each model's mean accuracy."""
    lines = (REFERENCE / "microvlm.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["set"] == "main"]
    return [(Candidate(**row["candidate"]), float(np.mean(list(row["accuracy"].values())))) for row in rows]


def test_rank_budget_of_a_square_layer_by_hand() -> None:
    candidate = next(one for one in SPACE if one.lm == "llama-words-64" and one.lm_depth == 3)
    lm = language_model("llama-words-64")
    assert (lm.hidden, lm.heads * lm.head_dim, lm.kv_heads * lm.head_dim, lm.ffn) == (64, 64, 32, 192)
    assert rank_budget(candidate) == 3 * (64 + 32 + 32 + 64 + 3 * 64)


def test_anchors_cover_every_encoder() -> None:
    chosen = [SPACE[i] for i in informative(Structure(SPACE).features(SPACE), 12)]
    assert {one.encoder for one in chosen} == {one.encoder for one in SPACE}
    assert len({one.key for one in chosen}) == 12


def test_a_dozen_anchors_rank_trained_models_better_than_their_parameters() -> None:
    rows = trained()
    structure = Structure(SPACE)
    chosen = [rows[i] for i in informative(structure.features([one for one, _ in rows]), 12)]
    model = Anchored(SPACE, [one for one, _ in chosen], [accuracy for _, accuracy in chosen])
    held = [row for row in rows if row not in chosen]
    guesses = model.predict([one for one, _ in held])
    truth = [accuracy for _, accuracy in held]
    rho = spearmanr([guess.value for guess in guesses], truth)[0]
    sizes = spearmanr([rank_budget(one) for one, _ in held], truth)[0]
    assert rho > 0.8 and rho > sizes + 0.3
    inside = np.mean([guess.low <= real <= guess.high for guess, real in zip(guesses, truth, strict=True)])
    assert 0.6 < inside < 0.98


def test_prediction_is_of_the_candidate_alone_and_labelled() -> None:
    chosen = trained()[:12]
    model = Anchored(SPACE, [one for one, _ in chosen], [accuracy for _, accuracy in chosen])
    several, alone = model.predict(SPACE[:50]), [model.predict([one])[0] for one in SPACE[:50]]
    for a, b in zip(several, alone, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-9)
        assert a.label == "predicted:anchored" and 0 <= a.low <= a.value <= a.high <= 1
    assert json.loads(json.dumps(model.to_dict()))["anchors"] == [one.key for one, _ in chosen]


def test_posterior_equals_the_normal_equations() -> None:
    """Quantiles against conditioning the joint normals by hand, warped back by scikit-learn, mixed by their shares."""
    chosen = trained()[:8]
    features = Structure(SPACE).features([*(one for one, _ in chosen), SPACE[17]])
    process = GaussianProcess(features[:8], [accuracy for _, accuracy in chosen])
    assert process.shares.sum() == pytest.approx(1) and np.count_nonzero(process.shares) > 10
    mean = second = 0.0
    for kernel, shares in zip(process.kernels, process.shares, strict=True):
        joint = kernel.between(features, features) + kernel.noise * np.eye(9)
        solved = np.linalg.solve(joint[:8, :8], joint[:8, 8])
        spread = np.sqrt(joint[8, 8] - solved @ joint[:8, 8])
        for power, targets, share in zip(POWERS, process.targets.T, shares, strict=True):
            transform = fitted_transformer(power, process.truths)
            middle = float(solved @ targets)
            low, median, high = transform.inverse_transform([[middle - spread], [middle], [middle + spread]])[:, 0]
            mean += share * median
            second += share * ((high - low) ** 2 / 4 + median**2)
    guess, deviation = process.predict(features[8:])
    assert guess[0] == pytest.approx(process.mean + process.scale * mean, abs=1e-9)
    assert deviation[0] == pytest.approx(process.widening * process.scale * np.sqrt(second - mean**2), rel=1e-6)


def fitted_transformer(power: float, truths: np.ndarray) -> PowerTransformer:
    """Scikit-learn's Yeo-Johnson transform of a given power, standardised on `truths`."""
    transform = PowerTransformer().fit(truths[:, None])
    transform.lambdas_ = np.array([power])
    transform._scaler.fit(yeojohnson(truths, power)[:, None])
    return transform


@pytest.mark.parametrize("power", [*POWERS, 0.4])
def test_warp_is_yeo_and_johnsons_and_comes_back(power: float) -> None:
    truths = np.array([-2.5, -0.7, 0.0, 0.3, 1.9, 4.0])
    warp = Warp.fitted(power, truths)
    by_scipy = yeojohnson(truths, power)
    assert warp(truths) == pytest.approx((by_scipy - by_scipy.mean()) / by_scipy.std())
    assert warp.back(warp(truths)) == pytest.approx(truths)
    slopes = (warp(truths + 1e-6) - warp(truths - 1e-6)) / 2e-6
    assert warp.log_slope(truths) == pytest.approx(np.log(slopes).sum(), abs=1e-5)


def test_truths_of_which_few_are_high_are_spread_below() -> None:
    features = np.linspace(-2, 2, 40)[:, None]
    skewed = GaussianProcess(features, np.exp(2 * features[:, 0]).tolist())
    assert skewed.shares.sum(axis=0).argmax() == POWERS.index(0.0)
    straight = GaussianProcess(features, features[:, 0].tolist())
    assert straight.shares.sum(axis=0).argmax() == POWERS.index(1.0)


def test_informative_anchor_lowers_the_others_variance_most() -> None:
    """The first choice against trying every row."""
    features = np.random.default_rng(0).normal(size=(30, 3))
    prior = CENTRE.between(features, features)
    left = [
        float(np.trace(prior) - (prior[:, i] ** 2).sum() / (prior[i, i] + CENTRE.noise)) for i in range(len(features))
    ]
    assert informative(features, 1) == [int(np.argmin(left))]


def test_proxy_is_admitted_where_it_says_what_structure_does_not() -> None:
    rows = trained()[:24]
    generator = np.random.default_rng(3)
    truth = list(np.tanh(generator.normal(size=24)) / 2 + 0.5)  # nothing to do with the structure
    proxies = [{"telling": value, "noise": float(n)} for value, n in zip(truth, generator.normal(size=24), strict=True)]
    model = Anchored(SPACE, [one for one, _ in rows], truth, proxies=proxies)
    assert model.admitted == "telling" and set(model.tried) == {"telling", "noise"}
    target = rows[0][0]
    low, high = (model.predict([target], [{"telling": value}])[0].value for value in (0.1, 0.9))
    assert high > low + 0.3
    assert model.predict([target], [{"telling": None}]) == model.predict([target])


def test_the_best_of_twenty_proxies_of_chance_is_seldom_admitted() -> None:
    rows = trained()[:12]
    admitted = 0
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(size=(12, 20))
        proxies = [{f"noise {i}": float(value) for i, value in enumerate(line)} for line in noise]
        model = Anchored(SPACE, [one for one, _ in rows], [accuracy for _, accuracy in rows], proxies=proxies)
        admitted += model.admitted is not None
    assert admitted <= 2


def test_too_few_anchors_are_refused() -> None:
    chosen = trained()[:4]
    with pytest.raises(ValueError, match="5 trained anchors or more"):
        Anchored(SPACE, [one for one, _ in chosen], [accuracy for _, accuracy in chosen])


def test_published_features_are_read_from_what_tables_write() -> None:
    row = {
        "vision_encoder": "SigLIP+DINOv2", "image_resolution": "384 AnyRes 6x6", "projector": "MLP-2x",
        "visual_tokens_after_compression": "3645", "compression_method": "FastV K=2 R=75%", "lm_name": "Qwen2.5-0.5B",
    }  # fmt: skip
    known = published_features(row)
    assert known["log LM params"] == pytest.approx(np.log2(500))
    assert known["LM release"] == 2024.7 and known["encoder saw text"] == 2.0 and known["log encoders"] == 1.0
    assert known["log resolution"] == np.log2(384) and known["log tiling"] == np.log2(6)
    assert known["log tokens"] == pytest.approx(np.log2(576)) and known["log tokens above 576"] == pytest.approx(
        np.log2(3645 / 4 / 576)
    )
    assert "log encoder params" not in known


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"lm_params_M": "7000"}, {"lm_params_M": "1000"}),
        ({"visual_tokens_after_compression": "576"}, {"visual_tokens_after_compression": "36"}),
        ({"vision_encoder": "CLIP ViT-L/14"}, {"vision_encoder": "DINOv2 ViT-L/14"}),
        ({"lm_name": "Qwen2.5-3B"}, {"lm_name": "Qwen1.5-3B"}),
    ],
)
def test_published_score_prefers_what_published_evidence_prefers(better: dict[str, str], worse: dict[str, str]) -> None:
    base = {"vision_encoder": "CLIP ViT-L/14", "lm_params_M": "3000", "lm_name": "Qwen1.5-3B"}
    assert score(base | better) > score(base | worse)


def test_published_score_never_depends_on_row_order() -> None:
    names = ["Vicuna-1.5-7B", "Qwen2.5-3B", "Phi-3-mini-3.8B"]
    first = [score({"lm_name": name}) for name in names]
    shuffled = names.copy()
    random.Random(1).shuffle(shuffled)
    assert dict(zip(names, first, strict=True)) == {name: score({"lm_name": name}) for name in shuffled}
