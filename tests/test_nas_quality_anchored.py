import json
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from nas.quality.anchored import Anchored
from nas.quality.published import features as published_features
from nas.quality.published import score
from nas.quality.structure import Structure, rank_budget, spread
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
    chosen = [SPACE[i] for i in spread(Structure(SPACE).features(SPACE), 12)]
    assert {one.encoder for one in chosen} == {one.encoder for one in SPACE}
    assert len({one.key for one in chosen}) == 12


def test_a_dozen_anchors_rank_trained_models_better_than_their_parameters() -> None:
    rows = trained()
    structure = Structure(SPACE)
    chosen = [rows[i] for i in spread(structure.features([one for one, _ in rows]), 12)]
    model = Anchored(SPACE, [one for one, _ in chosen], [accuracy for _, accuracy in chosen])
    held = [row for row in rows if row not in chosen]
    guesses = model.predict([one for one, _ in held])
    truth = [accuracy for _, accuracy in held]
    rho = spearmanr([guess.value for guess in guesses], truth)[0]
    sizes = spearmanr([rank_budget(one) for one, _ in held], truth)[0]
    assert rho > 0.6 and rho > sizes + 0.2
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
    """Mean and variance against conditioning the joint normal by hand (numpy, no inverse of ours)."""
    chosen = trained()[:8]
    model = Anchored(SPACE, [one for one, _ in chosen], [accuracy for _, accuracy in chosen])
    target = SPACE[17]
    points = model.structure.features([*(one for one, _ in chosen), target])
    joint = model.kernel.between(points, points) + model.kernel.noise * np.eye(9)
    solved = np.linalg.solve(joint[:8, :8], joint[:8, 8])
    mean = model.mean + model.scale * float(solved @ model.targets)
    deviation = model.scale * float(np.sqrt(joint[8, 8] - solved @ joint[:8, 8]))
    (guess,) = model.predict([target])
    assert guess.value == pytest.approx(min(1, max(0, mean)), abs=1e-9)
    if guess.low > 0 and guess.high < 1:
        assert guess.high - guess.low == pytest.approx(2 * 1.2816 * model.widening * deviation, rel=1e-6)


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
