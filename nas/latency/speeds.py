"""What the device does of plain arithmetic and copying, in torch and float32: the `calibration` of a profile.

A check of its peak and bandwidth, never a latency: products this large reach shares of a peak that no request does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

import torch

from hardware_profiles.profile import Calibration
from nas.latency.measure import Clock, canary_ms, measuring

WIDTH = 2048  # of the products' square right side: 16 MiB
ROWS = (1, 64, 512)
STREAMED_BYTES = 2**28  # beyond what any cache keeps from one pass to the next
SAMPLES, WARM_UPS = 12, 2
TINY_CALLS = 1000


def measure_speeds(threads: int, clock: Clock = time.perf_counter) -> Calibration:
    """Some three seconds on two cores. Rates are of the fastest sample; `cv` is that of the largest product.

    Temperatures are left to the caller."""
    with measuring(threads, seed=0):
        right = torch.ones(WIDTH, WIDTH)
        products = {rows: _samples(_product(torch.ones(rows, WIDTH), right), clock) for rows in ROWS}
        streamed = torch.ones(STREAMED_BYTES // 4 // WIDTH, WIDTH)
        vector, tiny = torch.ones(WIDTH), torch.zeros(1)
        by_vector = min(_samples(lambda: streamed @ vector, clock))
        read = min(_samples(streamed.sum, clock))
        overhead = min(_samples(lambda: [tiny.add_(1) for _ in range(TINY_CALLS)], clock)) / TINY_CALLS
        largest = products[ROWS[-1]]
        return Calibration(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            runtime="torch-eager",
            version=version("torch").split("+")[0],
            dtype="fp32",
            threads=threads,
            canary_ms=canary_ms(clock),
            gemm_gflops={f"m{rows}": 2e-9 * rows * WIDTH**2 / min(found) for rows, found in products.items()},
            gemv_gbps=1e-9 * STREAMED_BYTES / by_vector,
            read_gbps=1e-9 * STREAMED_BYTES / read,
            op_overhead_us=1e6 * overhead,
            n=SAMPLES,
            cv=statistics.stdev(largest) / statistics.mean(largest),
        )


def _product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: left @ right


def _samples(call: Callable[[], object], clock: Clock) -> list[float]:
    """Seconds of each call after some that are not counted."""
    found = []
    for _ in range(WARM_UPS + SAMPLES):
        start = clock()
        call()
        found.append(clock() - start)
    return found[WARM_UPS:]
