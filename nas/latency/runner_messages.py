"""Messages of a device, checked before they are used: JSON only, finite numbers, nothing that was not asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hardware_profiles.profile import Calibration
from nas.errors import RefusalError, RunnerError
from nas.latency.blocks import BlockTiming
from nas.latency.request import EndToEnd, Request, block_timing, end_to_end

MOST_LINE_BYTES = 2**24
SHOWN = 300  # characters of a device's own words in an error
VERSION = re.compile(r"[\w.+-]{1,60}")
KINDS = ("environment", "timings", "requests", "speeds", "progress", "error", "done")

Message = dict[str, Any]


def check_messages(lines: Iterator[str], where: str, request: Request) -> Iterator[Message]:
    """Messages as they come, up to `done`. Raises: RunnerError for nonsense, an error of the device, or no end."""
    for line in lines:
        message = _parse(line, where)
        if message["kind"] == "error":
            kind = RefusalError if message.get("lasting") is True else RunnerError
            raise kind(f"{where}: {plain(str(message.get('message', 'error without a reason')))}")
        try:
            _check(message, request)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunnerError(
                f"{where} answered with a {message['kind']} that is not what was asked: {_first(error)}; measure again"
            ) from error
        yield message
        if message["kind"] == "done":
            return
    raise RunnerError(f"{where} stopped before it was done; what was finished is kept, try again")


def plain(text: str) -> str:
    """One line without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()[:SHOWN]


def _parse(line: str, where: str) -> Message:
    try:
        message = json.loads(line, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or message.get("kind") not in KINDS:
        raise RunnerError(
            f"{where} answered with something else than measurements: {plain(line[:80])!r}; "
            f"see what else writes to its standard output"
        )
    return message


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _check(message: Message, request: Request) -> None:
    if message["kind"] == "environment":
        if not VERSION.fullmatch(message["runtime_version"]):
            raise ValueError("runtime_version is no version")
        _positive("canary_ms", message["canary_ms"])
    if message["kind"] == "timings":
        asked = {block.key: asdict(block) for block in request.blocks}
        for key, fields in message["timings"].items():
            _check_timing(fields, asked[key])
    if message["kind"] == "requests":
        for key, fields in message["results"].items():
            _check_end_to_end(fields, request.candidates[key].key)

    if message["kind"] == "speeds":
        if not request.speeds:
            raise ValueError("speeds that nobody asked for")
        Calibration.model_validate(message["calibration"])


def _check_timing(fields: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    timing = block_timing(fields)
    _typed(BlockTiming).validate_json(json.dumps(fields), strict=True)
    if timing.block != json.loads(json.dumps(asked)):  # JSON has no tuples
        raise ValueError("a timing of another block")
    if timing.scale != 1 or timing.modelled is not None:
        raise ValueError("a timing that was scaled or modelled instead of measured")
    _positive("samples_ms", *timing.samples_ms)
    _positive("canary_ms", timing.canary_ms, timing.calm_canary_ms)


def _check_end_to_end(fields: Mapping[str, Any], candidate: str) -> None:
    found = end_to_end(fields)
    _typed(EndToEnd).validate_json(json.dumps(fields), strict=True)
    if found.latency.label != "measured":
        raise ValueError(f"candidate {candidate} is labelled {found.latency.label!r} instead of 'measured'")
    _positive("totals_ms", *found.totals_ms)
    _positive("canary_ms", found.canary_ms)
    _positive("latency_ms", found.latency.latency_ms, found.latency.low_ms, found.latency.high_ms)


def _positive(name: str, *values: float) -> None:
    if not values or not all(isinstance(value, int | float) and value > 0 for value in values):
        raise ValueError(f"{name} must be positive numbers")


@cache
def _typed(record: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(record)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return plain(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    return plain(f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error))
