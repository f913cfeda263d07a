"""An ExecuTorch program of a model: vision with projector, embedding, prefill and decode, run again against eager."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import MissingPackageError, NasError
from nas.export_onnx import require_plain_decoder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.model import MultimodalLM, Processor

FILE = "model.pte"
TOLERANCE = 2e-3  # of logits, float32 against float32 with other kernels
STEPS = 4  # tokens that are decoded and compared
LONGEST = 2048  # positions of prompt and past; memory is planned for as many


def export_executorch(model: MultimodalLM, processor: Processor, to: Path) -> float:
    """Writes one program of four methods with portable kernels; returns the largest logit difference to eager.

    `prefill` takes the embeddings of a whole prompt, `decode` those of one token and what is past. Raises: ConfigError
    for a form whose cache is not keys and values, MissingPackageError, NasError where the logits differ.
    """
    require_plain_decoder(model, "executorch")
    try:
        import executorch.exir  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"--format executorch needs the package {error.name!r}; run: pip install executorch"
        ) from None
    from nas.export import new_folder, probe_inputs

    ids, images = probe_inputs(processor)
    pixels = images.contiguous()  # a program takes the memory order that it was exported with
    with new_folder(to) as partial:
        (partial / FILE).write_bytes(_program(model, pixels))
        processor.save(partial)
        (partial / "nas.json").write_text(json.dumps(model.candidate.to_dict(), indent=2), encoding="utf-8")
        difference = run_difference(model, partial / FILE, ids, pixels)
        if difference > TOLERANCE:
            raise NasError(f"ExecuTorch must agree within {TOLERANCE}, but differs by {difference:g}; report it")
        (partial / "README.md").write_text(_readme(model, difference), encoding="utf-8")
    return difference


def _program(model: MultimodalLM, pixels: Tensor) -> bytes:
    import torch
    from executorch.exir import to_edge
    from torch.export import Dim, export

    from nas.latency.graphs import Decoder, mask_for, vision_part
    from nas.model.language import head_width

    config: Any = model.language_model.config
    tokens, past = Dim("tokens", min=2, max=LONGEST), Dim("past", min=2, max=LONGEST)
    decoder = Decoder(model.language_model)
    keys = [
        torch.zeros(1, config.num_key_value_heads, 5, head_width(config)) for _ in range(2 * config.num_hidden_layers)
    ]
    first = (torch.zeros(1, 3, config.hidden_size), torch.arange(3)[None], mask_for(3, 0, 1))
    step = (torch.zeros(1, 1, config.hidden_size), torch.tensor([[5]]), mask_for(1, 5, 1), *keys)
    free = ({1: tokens}, {1: tokens}, {2: tokens, 3: tokens})
    growing: Any = ({}, {}, {3: past + 1}, tuple({2: past} for _ in keys))
    embedding: nn.Module = model.get_input_embeddings()
    with torch.no_grad():
        parts = {
            "vision": export(vision_part(model).eval(), (pixels,)),
            "embed": export(embedding, (torch.zeros(1, 3, dtype=torch.long),), dynamic_shapes=({1: tokens},)),
            "prefill": export(decoder, first, dynamic_shapes=free),
            "decode": export(decoder, step, dynamic_shapes=growing),
        }
        made: bytes = to_edge(parts).to_executorch().buffer
    return made


def run_difference(model: MultimodalLM, file: Path, ids: Tensor, pixels: Tensor) -> float:
    """Greedy decoding of STEPS tokens by the program; the largest logit difference to eager on the same tokens."""
    import torch
    from executorch.runtime import Runtime

    from nas.latency.graphs import mask_for

    program = Runtime.get().load_program(file)

    def run(method: str, *inputs: Tensor) -> Sequence[Tensor]:
        outputs: Sequence[Tensor] = program.load_method(method).execute([one.contiguous() for one in inputs])
        return [one.clone() for one in outputs]

    (visual,) = run("vision", pixels)
    (embedded,) = run("embed", ids)
    places = (ids == model.language_spec.image_token_id).unsqueeze(-1).expand_as(embedded)
    length = ids.shape[1]
    rows = embedded.masked_scatter(places, visual)
    logits, *past = run("prefill", rows, torch.arange(length)[None], mask_for(length, 0, 1))
    worst, seen = 0.0, ids
    for _ in range(STEPS):
        with torch.inference_mode():
            eager = model(input_ids=seen, pixel_values=pixels).logits[:, -1]
        worst = max(worst, float((logits[:, -1] - eager).abs().max()))
        token, length = eager.argmax(-1, keepdim=True), seen.shape[1]
        seen = torch.cat([seen, token], 1)
        (row,) = run("embed", token.expand(1, 2))  # its lengths begin at two
        logits, *past = run("decode", row[:, :1], torch.tensor([[length]]), mask_for(1, length, 1), *past)
    return worst


def _readme(model: MultimodalLM, difference: float) -> str:
    return (
        f"# {model.candidate}\n\nFound by `nas`; an ExecuTorch program with portable kernels, float32.\n\n"
        "`vision`: pixel_values -> visual tokens. `embed`: ids (two or more) -> rows; those of the image placeholder\n"
        "are replaced by visual tokens. `prefill`: rows, positions, additive mask -> last position's logits, then\n"
        "keys and values of each layer. `decode`: the same for one row, with keys and values as further inputs.\n\n"
        f"Largest logit difference to the searched model over {STEPS} greedy steps: {difference:g}.\n"
    )
