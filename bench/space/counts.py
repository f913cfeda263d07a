"""FLOPs of the parts of the catalogue: the closed form against fvcore and torch's own counter, in percent.

    python bench/space/counts.py [NAME]...        # default: every encoder and language model

Weights and inputs are random, and a real pass is traced: fvcore traces no convolution on the meta device. Sound encoders
hear the 30 seconds of `audio-clip`, others stand at 112 pixels, language models are cut to one period of layers. fvcore
knows no fused attention and is told its products; it counts a multiply-add once, here twice.
"""

from __future__ import annotations

import argparse
import math
import warnings
from typing import Any

import torch
from parts import PLAIN, designs
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import nas.workload
from nas.cost import cost
from nas.latency.amounts import amounts
from nas.latency.graphs import vision_part
from nas.model import build
from nas.workload import Workload
from search_spaces import Candidate, catalogue

HEARD_FRAMES = 3000


class Decoder(torch.nn.Module):
    """The language model on embeddings, as a function of one tensor."""

    def __init__(self, decoder: torch.nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, embedded: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.decoder(inputs_embeds=embedded, logits_to_keep=1, use_cache=False).logits
        return found


def by_fvcore(module: torch.nn.Module, given: torch.Tensor) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scripting inside the package, and of the tracer
        from fvcore.nn import FlopCountAnalysis

        found = FlopCountAnalysis(module.eval(), given)
        found.set_op_handle("aten::scaled_dot_product_attention", _attention_products)
        found.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return 2 * int(found.total())


def _attention_products(inputs: list[Any], outputs: list[Any]) -> int:
    query, key = (value.type().sizes() for value in inputs[:2])
    return int(2 * math.prod(query) * key[-2])


def by_torch(module: torch.nn.Module, given: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        module.eval()(given)
    return int(counter.get_total_flops())


def line(name: str, fields: dict[str, Any]) -> str:
    """One row: the part, its closed form, and how far both counts are from it."""
    sees = name in catalogue.encoders()
    workload = Workload(name="counted", prompt_tokens=16, new_tokens=1)
    mels = catalogue.encoders()[name].mels if sees else 0
    if mels:
        workload = nas.workload.load("audio-clip")
        fields = fields | {"resolution": HEARD_FRAMES}
    candidate = Candidate.model_validate({**PLAIN, **fields})
    found, bill = amounts(candidate, workload), cost(candidate, workload)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        model = build(candidate, weights="random", quantised=False)
        if sees:
            shape = (mels, candidate.resolution) if mels else (1, 3, candidate.resolution, candidate.resolution)
            module, given = vision_part(model), torch.zeros(found.photos, *shape)
            paid = bill.vision_flops + bill.projector_flops
        else:
            if model.language_spec.config.get("num_experts"):
                model.language_model.set_experts_implementation("eager")  # no counter knows the grouped product
            module, paid = Decoder(model.language_model), bill.prefill_flops
            given = torch.zeros(1, found.prompt, model.language_spec.hidden)
        counts = [count(module, given) for count in (by_fvcore, by_torch)]
    told = " | ".join(f"{100 * (paid / count - 1):+.2f} %" for count in counts)
    return f"| {candidate} | {paid / 1e9:.4g} | {told} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args().names
    print("| part | closed form GFLOPs | against fvcore | against torch |\n|---|--:|--:|--:|")
    for name, fields in designs().items():
        if not asked or name in asked:
            print(line(name, fields), flush=True)


if __name__ == "__main__":
    main()
