"""What published results say of a VLM's parts: a linear score over encoder, resolution, tokens, projector and LM.

It ranks designs that differ in parts of real size; its weights (`published.json`) are fitted by bench/quality/published
on within-group ranks of published comparisons. Every feature is oriented so that published evidence expects more of it
to be better, and its weight may not be negative. A feature that is not known is left out, not guessed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from search_spaces.candidate import Candidate
from search_spaces.catalogue import encoder, language_model

WEIGHTS_FILE = Path(__file__).with_name("published.json")

# Release of a family as a decimal year (model cards and papers). At equal size a newer LM is better: "Densing Law of
# LLMs" (Xiao et al. 2024, arXiv 2412.04315) finds capability density to double every three to four months.
LANGUAGE_RELEASES = {
    "qwen3": 2025.3, "qwen2.5": 2024.7, "qwen2": 2024.45, "qwen1.5": 2024.1, "qwen": 2023.6, "llama-3.2": 2024.73,
    "llama-3.1": 2024.55, "llama-3": 2024.3, "llama-2": 2023.55, "vicuna": 2023.55, "llama": 2023.15,
    "tinyllama": 2024.0, "mobilellama": 2023.95, "openelm": 2024.3, "phi-4": 2025.15, "phi-3": 2024.3, "phi-2": 2023.95,
    "phi-1.5": 2023.7, "stablelm": 2024.05, "gemma-3": 2025.2, "gemma-2-": 2024.5, "gemma2": 2024.5, "gemma": 2024.15,
    "internlm2.5": 2024.5, "internlm2": 2024.05, "internlm3": 2025.05, "internlm": 2023.5, "mistral": 2023.75,
    "yi": 2023.9, "mpt": 2023.35, "redpajama": 2023.35, "opt": 2022.35, "pythia": 2023.25, "smollm2": 2024.85,
    "smollm3": 2025.5, "smollm": 2024.55, "minicpm": 2024.1, "olmo": 2024.1, "mamba": 2023.95, "deepseek": 2023.95,
}  # fmt: skip
# Trained on images with their text; a vision encoder without any text in training serves a VLM worse ("Cambrian-1",
# Tong et al. 2024, arXiv 2406.16860, section 3).
TEXT_ENCODERS = {
    "siglip2": 2025.15, "siglip 2": 2025.15, "siglip": 2023.7, "mlcd": 2024.55, "comp": 2025.2, "aimv2": 2024.9,
    "internvit": 2023.95, "ivit": 2023.95, "dfn": 2023.75, "eva": 2023.2, "metaclip": 2023.75, "mobileclip": 2023.9,
    "fastvit": 2024.9, "fastvlm": 2024.9, "openclip": 2022.7, "clip": 2021.05, "convnext": 2022.8, "sam": 2023.25,
    "perception": 2025.3,
}  # fmt: skip
SELF_SUPERVISED = ("dino", "mae", "ijepa", "mocov3")
GENERATIVE = ("diffusion", "unet", "dit", "sd3", "sdxl")
# First arXiv month of methods that drop or merge tokens of a trained model; later ones were compared with earlier ones.
METHOD_RELEASES = {
    "tome": 2022.8, "fastv": 2024.2, "prumerge": 2024.25, "sparsevlm": 2024.75, "visionzip": 2024.95, "pdrop": 2024.8,
    "hired": 2024.65, "trim": 2024.75, "vispruner": 2024.95, "divprune": 2025.2, "cdpruner": 2025.45, "dart": 2025.1,
    "hiprune": 2025.6, "flowcut": 2025.4, "holov": 2025.75, "vscan": 2025.4, "visa": 2025.65, "d2pruner": 2025.95,
    "ficoco": 2024.9, "dop-": 2025.9, "twigvlm": 2025.2, "yopo": 2024.8, "dynamic-llava": 2024.95, "vica": 2025.95,
    "tokenpacker": 2024.5, "delta-llava": 2025.95, "globalcom2": 2025.0, "langdc": 2025.45,
}  # fmt: skip
TOKEN_SCALE_END = 576.0  # LLaVA-1.5's tokens; above them more tokens help less

Row = Mapping[str, str]


def features(row: Row) -> dict[str, float]:
    """Oriented features of one published model; keys that are missing are not known."""
    found: dict[str, float | None] = {}
    text = " ".join(str(row.get(name) or "") for name in ("compression_method", "notes", "lm_name")).lower()
    language, vision = str(row.get("lm_name") or "").lower(), str(row.get("vision_encoder") or "").lower()
    projector, method = str(row.get("projector") or "").lower(), str(row.get("compression_method") or "").lower()
    found["log LM params"] = _log(_number(row.get("lm_params_M")) or _billions(language))
    found["LM release"] = _release(language, LANGUAGE_RELEASES)
    found["log encoder params"] = _log(_number(row.get("encoder_params_M")))
    if vision:
        found["encoder saw text"] = _saw_text(vision)
        found["encoder release"] = _release(vision, TEXT_ENCODERS)
        found["log encoders"] = math.log2(vision.count("+") + 1)
    size = f"{row.get('image_resolution') or ''} {method}".lower()
    found["log resolution"] = _log(_side(size))
    found["log tiling"] = math.log2(_tiles(size))
    found["method release"] = _release(method, METHOD_RELEASES)
    found["merged after projector"] = -1.0 if "before projector" in method else 0.0
    tokens = _number(row.get("visual_tokens_after_compression"))
    kept = _kept_share(method)
    if tokens:
        tokens *= kept
        found["log tokens"] = math.log2(min(tokens, TOKEN_SCALE_END))
        found["log tokens above 576"] = math.log2(max(tokens, TOKEN_SCALE_END) / TOKEN_SCALE_END)
    elif kept < 1:
        found["log tokens"] = math.log2(kept)
    found["no resampler"] = -1.0 if re.search(r"resampler|q-former|perceiver", projector + method) else 0.0
    found["not one matrix"] = -1.0 if "linear" in projector else 0.0
    found["trained with it"] = -1.0 if "training-free" in method else 0.0
    found["full precision"] = -1.0 if re.search(r"awq|int4|4-bit|w4", text) else 0.0
    return {name: value for name, value in found.items() if value is not None}


def score(row: Row) -> float:
    """Weighted sum of the known features: higher is better, comparable among designs that know the same features."""
    known = features(row)
    return sum(weight * known.get(name, centre) for name, (weight, centre) in _weights().items())


# The scaling law of nas.quality.prior speaks of these; the rest of the score is what it does not know.
OF_THE_LAW = ("log LM params", "log tokens", "log tokens above 576")
RESAMPLERS = ("resampler", "q-former", "perceiver", "abstractor")
LOW_BITS = "int4"


def of_candidate(candidate: Candidate) -> dict[str, float]:
    """Oriented features of a candidate, from what the catalogue says of its parts; without those of the law."""
    seen = [encoder(candidate.encoder)]
    if candidate.second_encoder != "none":
        seen.append(encoder(candidate.second_encoder))
    words = [f"{one.name} {one.timm} {one.hub or ''}".lower() for one in seen]
    releases = [date for text in words if (date := _release(text, TEXT_ENCODERS)) is not None]
    pooled_first = candidate.compression == "avgpool" and not candidate.projector.startswith("ldp")
    found: dict[str, float | None] = {
        "LM release": _release(f"{candidate.lm} {language_model(candidate.lm).hub or ''}".lower(), LANGUAGE_RELEASES),
        "log encoder params": math.log2(sum(one.params for one in seen) / 1e6),
        "encoder saw text": max(2.0 if _release(text, TEXT_ENCODERS) is not None else 1.0 for text in words),
        "encoder release": max(releases, default=None),
        "log encoders": math.log2(len(seen)),
        "log resolution": math.log2(candidate.resolution),
        "log tiling": math.log2(candidate.tiles if candidate.tiling == "s2" else math.sqrt(candidate.tiles)),
        "merged after projector": -1.0 if pooled_first else 0.0,
        "no resampler": -1.0 if any(word in candidate.projector for word in RESAMPLERS) else 0.0,
        "full precision": -1.0 if candidate.lm_weights == LOW_BITS else 0.0,
    }
    return {name: value for name, value in found.items() if value is not None}


def beyond_the_law(candidate: Candidate) -> float:
    """Accuracy (0..1) above or below the median published design, for what the scaling law does not speak of."""
    known = of_candidate(candidate)
    centred = (
        weight * (known.get(name, centre) - centre)
        for name, (weight, centre) in _weights().items()
        if name not in OF_THE_LAW
    )
    return calibration()["slope"] * sum(centred)


@cache
def calibration() -> dict[str, float]:
    """slope: accuracy of a unit of score; half_width: of its 80 % interval under one recipe; coverage: as measured."""
    found: dict[str, float] = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))["calibration"]
    return found


@cache
def known_groups() -> frozenset[str]:
    """Groups that the weights were fitted on."""
    return frozenset(json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))["group_names"])


@cache
def _weights() -> dict[str, tuple[float, float]]:
    """(weight, value that stands for an unknown) of each feature."""
    stored = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))["weights"]
    return {name: (entry["weight"], entry["centre"]) for name, entry in stored.items()}


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _log(value: float | None) -> float | None:
    return None if value is None else math.log2(value)


def _billions(name: str) -> float | None:
    """Millions of parameters out of a name such as `qwen2.5-0.5b`."""
    found = re.findall(r"(\d+(?:\.\d+)?)b\b", name)
    return float(found[-1]) * 1000 if found else None


def _release(name: str, releases: Mapping[str, float]) -> float | None:
    """The longest family name that occurs; of several encoders the newest."""
    parts = name.split("+")
    dates = []
    for part in parts:
        known = [family for family in releases if family in part]
        if known:
            dates.append(releases[max(known, key=len)])
    return max(dates) if dates else None


def _saw_text(vision: str) -> float:
    """2 text, 1 images only, 0 generation; the best of several encoders."""

    def grade(part: str) -> float:
        if any(name in part for name in TEXT_ENCODERS):
            return 2.0
        if any(name in part for name in SELF_SUPERVISED):
            return 1.0
        return 0.0 if any(name in part for name in GENERATIVE) else 2.0

    return max(grade(part) for part in vision.split("+"))


def _side(text: str) -> float | None:
    """Longest side in pixels of one view: `384 anyres 2x2` is 384, `336+672+1008 (s2)` is 336."""
    sides = [int(found) for found in re.findall(r"(?<![\d.])(\d{3,4})(?!\d|b)", text.split("(")[0])]
    plausible = [side for side in sides if 100 <= side <= 4096]
    if not plausible:
        return None
    return float(min(plausible) if "+" in text else max(plausible))


def _tiles(text: str) -> float:
    """How many times finer than one view the picture is seen: tiles of a side, or scales of S2."""
    grid = re.search(r"\b(\d{1,2})\s*x\s*(\d{1,2})\b", text)
    if grid and ("anyres" in text or "tile" in text or "tiling" in text):
        return float(max(int(grid[1]), int(grid[2])))
    return 2.0 if re.search(r"\bs2\b|anyres|tiling|tiles", text) else 1.0


def _kept_share(method: str) -> float:
    """FastV-like methods name the share of tokens that they drop after layer K: R=50%."""
    found = re.search(r"r\s*=\s*(\d+)\s*%", method)
    return 1 - int(found[1]) / 100 if found else 1.0
