"""Every runtime computes what eager mode computes, and its blocks can be timed again and again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nas.workload
import search_spaces
from nas.errors import UnknownNameError
from nas.latency.backends import RUNTIMES, backend, check
from nas.latency.end_to_end import Request
from nas.latency.terms import needed
from nas.model import build

WORKLOAD = nas.workload.load("vqa-short")
CANDIDATE = search_spaces.load("micro").baseline_candidate.model_copy(update={"lm_depth": 2})


def loaded(runtime: str, dtype: str) -> Any:
    if runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime)
        pytest.importorskip("onnxscript")
    found = backend(runtime, dtype, threads=1)
    with torch.inference_mode():
        return found.load(build(CANDIDATE, weights="random"))


def answer(stages: Any) -> tuple[torch.Tensor, list[int]]:
    """Visual tokens of a fixed picture, and the tokens that are decoded greedily from them."""
    ids = Request(CANDIDATE, WORKLOAD, stages).ids
    pixels = torch.rand(1, 3, CANDIDATE.resolution, CANDIDATE.resolution, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        visual = stages.projector(stages.vision(pixels))
        stages.begin(1, 0)
        newest = stages.prefill(ids, visual.reshape(1, -1, visual.shape[-1]))
        tokens = [int(newest)]
        for _ in range(6):
            newest = stages.step(newest)
            tokens.append(int(newest))
    return visual.clone(), tokens


@pytest.mark.filterwarnings("ignore")  # the compilers warn of their own internals
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch-compile"])
def test_a_runtime_decodes_what_eager_mode_decodes(runtime: str) -> None:
    visual, tokens = answer(loaded("torch-eager", "fp32"))
    stages = loaded(runtime, "fp32")
    for _ in range(2):  # the second request starts from an empty cache again
        found, decoded = answer(stages)
        torch.testing.assert_close(found, visual, rtol=1e-4, atol=1e-4)
        assert decoded == tokens


@pytest.mark.filterwarnings("ignore")
def test_the_decoders_graph_gives_the_logits_of_eager_mode_at_prefill_and_at_each_step() -> None:
    pytest.importorskip("onnxruntime")
    from nas.latency.backends.graph import decoder
    from nas.latency.backends.onnx_runtime import OnnxRuntime
    from nas.latency.jobs import causal_lm

    with torch.inference_mode():
        model: Any = causal_lm("llama-micro", 2)
        graph = decoder(OnnxRuntime("fp32", 1), model)
        embedded = torch.randn(2, 7, model.config.hidden_size)
        graph.start(2)
        truth = model(inputs_embeds=embedded, use_cache=True)
        torch.testing.assert_close(graph(embedded), truth.logits[:, -1:], rtol=1e-4, atol=1e-4)
        for _ in range(3):
            step = torch.randn(2, 1, model.config.hidden_size)
            truth = model(inputs_embeds=step, past_key_values=truth.past_key_values, use_cache=True)
            torch.testing.assert_close(graph(step), truth.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_int8_stays_close_to_float() -> None:
    visual, _ = answer(loaded("torch-eager", "fp32"))
    found, _ = answer(loaded("onnxruntime", "int8"))
    assert torch.corrcoef(torch.stack([found.flatten(), visual.flatten()]))[0, 1] > 0.98


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("runtime", ["torch-eager", "onnxruntime"])
def test_every_block_of_a_runtime_runs_again_and_again_in_the_same_state(runtime: str) -> None:
    found = backend(runtime, "fp32", threads=1)
    blocks = [block for block in needed(CANDIDATE, WORKLOAD, runtime) if block.depth < 3]
    with torch.inference_mode():
        for block in blocks:
            job = found.job(block)
            results = []
            for _ in range(3):
                results.append(job.run())
                job.restore()
            if isinstance(results[0], torch.Tensor) and block.kind in ("vision", "projector"):
                torch.testing.assert_close(results[0], results[2])


@pytest.mark.filterwarnings("ignore")
def test_a_growing_cache_compiles_the_layers_a_few_times_only() -> None:
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    answer(loaded("torch-compile", "fp32"))
    assert 0 < counters["stats"]["unique_graphs"] <= 10


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_an_unknown_runtime_or_dtype_is_named(runtime: str) -> None:
    check(runtime, RUNTIMES[runtime][0])
    with pytest.raises(UnknownNameError, match="has no dtype 'fp7'"):
        check(runtime, "fp7")
    with pytest.raises(UnknownNameError, match="did you mean"):
        check(runtime[:-1], "fp32")
