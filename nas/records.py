"""The frozen records that cross processes and the database. Plain numbers only: no tensor, no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

NO_LATENCY = "of so many tokens or of their decoder none is measured, or their device stopped answering"
LatencyLabel = Literal["measured", "composed", "estimated:calibrated", "estimated:datasheet"]
QualityLabel = Literal["predicted:prior", "predicted:anchored", "trained:short", "trained:full"]
Status = Literal["complete", "infeasible", "failed"]

GIB = 2**30
DTYPE_BYTES = 4  # float32, what the runtimes compute in


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of one candidate with its interval; the label says how it was obtained."""

    value: float
    low: float
    high: float
    label: QualityLabel

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def request_ms(parts: Mapping[str, float], new_tokens: int) -> float:
    """Time of a whole answer from its parts: the first token and new_tokens - 1 decode steps of `tpot_ms`."""
    return sum(parts.values()) + (new_tokens - 2) * parts["tpot_ms"]


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one request on one device, by parts. `low_ms` and `high_ms` bound `latency_ms`."""

    preprocess_ms: float
    vision_ms: float
    projector_ms: float
    prefill_ms: float
    tpot_ms: float
    new_tokens: int
    label: LatencyLabel
    low_ms: float
    high_ms: float
    extrapolated: bool = False  # an estimate beyond what its calibration has seen

    @property
    def ttft_ms(self) -> float:
        """Time to the first token: preprocessing, vision, projector with compression, and prefill."""
        return self.preprocess_ms + self.vision_ms + self.projector_ms + self.prefill_ms

    @property
    def latency_ms(self) -> float:
        """Time of the whole answer: the first token and new_tokens - 1 decode steps."""
        return self.ttft_ms + (self.new_tokens - 1) * self.tpot_ms

    def to_dict(self) -> dict[str, Any]:
        """The form of `nas report --json`."""
        return {
            "ttft_ms": self.ttft_ms,
            "tpot_ms": self.tpot_ms,
            "latency_ms": self.latency_ms,
            "label": self.label,
            "low": self.low_ms,
            "high": self.high_ms,
            "extrapolated": self.extrapolated,
            "parts": {
                "preprocess_ms": self.preprocess_ms,
                "vision_ms": self.vision_ms,
                "projector_ms": self.projector_ms,
                "prefill_ms": self.prefill_ms,
            },
        }


@dataclass(frozen=True, slots=True)
class Cost:
    """Closed-form cost of one candidate under one workload; FLOPs = 2 x multiply-adds, batch of the workload."""

    encoder_params: int
    projector_params: int
    lm_body_params: int
    embedding_params: int
    vision_flops: int
    projector_flops: int
    prefill_flops: int
    decode_flops: int  # of one new token at the full context
    grid_tokens: int  # visual tokens before compression, a request
    visual_tokens: int  # visual tokens that enter the language model, a request
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int

    @property
    def params(self) -> int:
        return self.encoder_params + self.projector_params + self.lm_body_params + self.embedding_params

    @property
    def flops(self) -> int:
        """FLOPs until the first token."""
        return self.vision_flops + self.projector_flops + self.prefill_flops

    @property
    def memory_bytes(self) -> int:
        """Peak memory estimate: weights, KV cache at the full context, and the largest activations."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    @property
    def memory_gib(self) -> float:
        return self.memory_bytes / GIB


@dataclass(frozen=True, slots=True)
class ProxyScore:
    """What one proxy says of one candidate: a finite value, or None and the reason."""

    value: float | None
    seconds: float
    reason: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything known of one evaluated candidate."""

    key: str
    candidate: dict[str, Any]
    status: Status
    quality: Quality | None
    latency: dict[str, Latency]  # by device id
    cost: Cost | None
    proxies: dict[str, ProxyScore]
    violations: dict[str, float]  # by constraint, > 0 where violated, in the constraint's unit
    wall_s: float
    error: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """A finalist trained on real data at a stated budget."""

    key: str
    label: QualityLabel
    data: str
    seed: int
    steps: int
    samples_seen: int
    train_s: float
    accuracy_open: float  # accuracy on open (not yes/no) questions of held-out images
    blind_open: float  # the same for the majority answer per question text
    accuracy_all: float
    blind_all: float
    open_questions: int
    low: float  # 95 % interval of accuracy_open (Wilson)
    high: float
    losses: list[tuple[int, float]] = field(default_factory=list)  # (step, mean loss since the last entry)
    checkpoint: str | None = None  # folder, relative to the run folder

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Training:
        """The record that `dataclasses.asdict` and JSON were made of."""
        return cls(**{**fields, "losses": [(step, loss) for step, loss in fields["losses"]]})
