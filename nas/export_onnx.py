"""ONNX graphs of a model: vision with projector, and the decoder with its cache; run in ONNX Runtime against eager."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ConfigError, MissingPackageError, NasError

if TYPE_CHECKING:
    from torch import Tensor

    from nas.model import MultimodalLM, Processor

FILES = ("vision.onnx", "embedding.onnx", "decoder.onnx")
TOLERANCE = 2e-3  # of logits, float32 against float32 with other kernels
STEPS = 4  # decode steps that are compared
FORMS = ("llama", "qwen2", "qwen3", "smollm3", "olmo", "phi3")


def export_onnx(model: MultimodalLM, processor: Processor, to: Path) -> float:
    """Writes the graphs, tokenizer and a description; returns the largest logit difference of prefill and decode steps.

    `decoder.onnx` serves both: prefill with no past, decode with one token. Raises: ConfigError for a form whose cache
    is not keys and values, MissingPackageError, NasError where the logits differ.
    """
    require_plain_decoder(model, "onnx")
    candidate = model.candidate
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"--format onnx needs the package {error.name!r}; run: pip install onnx onnxscript onnxruntime"
        ) from None
    import torch

    from nas.export import new_folder, probe_inputs
    from nas.latency.graphs import decoder_graph, graph, vision_part

    ids, pixels = probe_inputs(processor)
    with new_folder(to) as partial:
        graphs = {
            "vision.onnx": graph(vision_part(model), pixels, "pixel_values", "visual_tokens"),
            "embedding.onnx": graph(
                model.get_input_embeddings(), torch.zeros(1, 1, dtype=torch.long), "ids", "embedded"
            ),
            "decoder.onnx": decoder_graph(model.language_model),
        }
        for name, made in graphs.items():
            onnx.save(made, str(partial / name))
        processor.save(partial)
        (partial / "README.md").write_text(_readme(model, processor), encoding="utf-8")
        (partial / "nas.json").write_text(json.dumps(candidate.to_dict(), indent=2), encoding="utf-8")
        difference = run_difference(model, partial, ids, pixels)
        if difference > TOLERANCE:
            raise NasError(f"ONNX Runtime must agree within {TOLERANCE}, but differs by {difference:g}; report it")
    return difference


def require_plain_decoder(model: MultimodalLM, form: str) -> None:
    """Raises: ConfigError where the decoder's cache is not plain keys and values of every token."""
    candidate, spec = model.candidate, model.language_spec
    if (
        spec.architecture not in FORMS
        or candidate.lm_weights != "native"
        or candidate.kv_cache != "native"
        or candidate.prune_layer
        or candidate.crosses
    ):
        raise ConfigError(
            f"--format {form}: the language model must be of the form {', '.join(FORMS)}, native weights and cache, "
            f"no fastv or cross-attention, but got {spec.architecture}, {candidate.lm_weights}, {candidate.kv_cache}, "
            f"prune_layer {candidate.prune_layer}, {candidate.projector}; use --format hf"
        )


def run_difference(model: MultimodalLM, folder: Path, ids: Tensor, pixels: Tensor) -> float:
    """Greedy decoding of STEPS tokens by the graphs; the largest logit difference to eager on the same tokens."""
    import numpy as np
    import onnxruntime as ort
    import torch

    from nas.latency.graphs import mask_for
    from nas.model.language import head_width

    vision, embedding, decoder = (ort.InferenceSession(str(folder / name)) for name in FILES)
    names = [item.name for item in decoder.get_inputs()]
    config: Any = model.language_model.config
    past = {
        name: np.zeros((1, config.num_key_value_heads, 0, head_width(config)), np.float32)
        for name in names
        if name[:4] == "past"
    }
    (visual,) = vision.run(None, {"pixel_values": pixels.numpy()})
    rows = model.embed(ids, torch.from_numpy(visual)).detach()
    worst, seen = 0.0, ids
    for _ in range(STEPS):
        tokens, before = rows.shape[1], next(iter(past.values())).shape[2]
        fed = {
            "embedded": rows.numpy(), "positions": np.arange(before, before + tokens)[None],
            "mask": mask_for(tokens, before, 1).numpy(),
        }  # fmt: skip
        logits, *present = decoder.run(None, {name: (fed | past)[name] for name in names})
        past = dict(zip(past, present, strict=True))
        with torch.inference_mode():
            expected = model(input_ids=seen, pixel_values=pixels, use_cache=False).logits[:, -1]
        worst = max(worst, float((torch.from_numpy(logits[:, -1]) - expected).abs().max()))
        chosen = logits[:, -1:].argmax(-1)
        seen = torch.cat([seen, torch.from_numpy(chosen)], 1)
        rows = torch.from_numpy(embedding.run(None, {"ids": chosen})[0])
    return worst


def _readme(model: MultimodalLM, processor: Processor) -> str:
    side = processor.resolution
    shape = (1, processor.mels, side) if processor.mels else (1, 3, side, side)
    return f"""# {model.candidate}

Three graphs in float32. `vision.onnx`: pixels {shape} to visual tokens
(1, {model.visual_tokens}, H). `embedding.onnx`: one token id to its row. `decoder.onnx`: rows, positions, an additive
mask and past keys and values to the logits of the last token and the new keys and values. Prefill starts with a past
of length 0, a decode step feeds one row. Prompt: start mark, {model.visual_tokens} visual tokens, question, end mark.
"""
