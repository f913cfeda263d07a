"""kv-bytes: the memory that one request leaves in the cache. A baseline."""

from __future__ import annotations

from torch import nn

from proxies.anatomy import embedding, kv_width
from proxies.batch import ProbeBatch
from proxies.registry import ProxyError, proxy


@proxy(
    name="kv-bytes",
    paper="counted; Shazeer, Fast Transformer Decoding, 2019 (arXiv 1911.02150), section 2.4",
    equation="T * sum over layers of (key width + value width) * bytes of a weight, T tokens of a sample",
    families="transformers",
)
def kv_bytes(model: nn.Module, batch: ProbeBatch, splits: int) -> float:
    """Key and value matrices are found by their names."""
    width = kv_width(model)
    if not width:
        raise ProxyError("kv-bytes needs key and value matrices, but no weight of the decoder is named as one")
    return float(batch.input_ids.shape[1] * width * embedding(model).element_size())
