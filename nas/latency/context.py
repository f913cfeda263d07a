"""What the timings made by this process are tied to. No torch: versions come from the installed packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from hardware_profiles import HardwareProfile
from nas.errors import MissingPackageError
from nas.latency.blocks import MeasurementContext

PACKAGES = {"torch-eager": "torch", "torch-compile": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}


def context_here(profile: HardwareProfile, runtime: str = "torch-eager", dtype: str = "fp32") -> MeasurementContext:
    """Raises: MissingPackageError where the runtime is not installed here."""
    package = PACKAGES[runtime]
    try:
        installed = version(package).split("+")[0]
    except PackageNotFoundError:
        raise MissingPackageError(f"runtime {runtime!r} is not installed; run: pip install {package}") from None
    return MeasurementContext(profile.id, runtime, installed, dtype, profile.threads(runtime))
