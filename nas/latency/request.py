"""What is asked of a device, and the records that come back: JSON both ways, nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hardware_profiles import HardwareProfile
from nas.latency.blocks import BlockSpec, BlockTiming
from nas.latency.memory import PeakMemory
from nas.records import Latency
from nas.workload import Workload
from search_spaces import Candidate

ROUNDS = 12
PASSES = 3  # a machine is slow for seconds at a time: every block is measured again when all others have been


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """A measured latency, the total of every round in ms, the canary of the session, and what was seen beside."""

    latency: Latency
    totals_ms: tuple[float, ...]
    canary_ms: float
    memory: PeakMemory | None = None  # None where the system does not tell
    sustained_ms: float | None = None  # median of a request after some time under load; None = not asked for
    energy_j: float | None = None  # of a request, by the processor's own counters; None where none can be read


@dataclass(frozen=True, slots=True)
class Request:
    """Blocks to be timed, or candidates to be run end to end, on one device in one runtime; nothing = its state.

    With both, the blocks are timed among the requests of the candidates. `speeds`: what it does of plain products.
    """

    profile: HardwareProfile
    runtime: str = "torch-eager"
    dtype: str = "fp32"
    blocks: tuple[BlockSpec, ...] = ()
    candidates: Mapping[str, Candidate] = field(default_factory=dict)
    workload: Workload | None = None
    rounds: int | None = None  # None = the profile's, else ROUNDS
    sustained_s: float = 0
    speeds: bool = False
    passes: int = PASSES  # over the blocks, where no candidates are run
    seed: int = 0

    def to_json(self) -> str:
        return json.dumps(
            {
                "profile": self.profile.model_dump(mode="json", by_alias=True),
                "runtime": self.runtime,
                "dtype": self.dtype,
                "blocks": [asdict(block) for block in self.blocks],
                "candidates": {key: candidate.to_dict() for key, candidate in self.candidates.items()},
                "workload": None if self.workload is None else self.workload.model_dump(),
                "rounds": self.rounds,
                "sustained_s": self.sustained_s,
                "speeds": self.speeds,
                "passes": self.passes,
                "seed": self.seed,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Raises: ValueError or TypeError where the text is no request."""
        fields: dict[str, Any] = json.loads(text)
        workload = fields["workload"]
        return cls(
            **fields
            | {
                "profile": HardwareProfile.model_validate(fields["profile"]),
                "blocks": tuple(BlockSpec(**block) for block in fields["blocks"]),
                "candidates": {key: Candidate(**value) for key, value in fields["candidates"].items()},
                "workload": None if workload is None else Workload(**workload),
            }
        )


def block_timing(fields: Mapping[str, Any]) -> BlockTiming:
    """The record that `dataclasses.asdict` and JSON were made of."""
    return BlockTiming(**{**fields, "samples_ms": tuple(fields["samples_ms"])})


def end_to_end(fields: Mapping[str, Any]) -> EndToEnd:
    """The record that `dataclasses.asdict` and JSON were made of."""
    memory = fields["memory"]
    return EndToEnd(
        Latency(**fields["latency"]),
        tuple(fields["totals_ms"]),
        fields["canary_ms"],
        None if memory is None else PeakMemory(**memory),
        fields["sustained_ms"],
        fields["energy_j"],
    )
