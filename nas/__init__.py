"""Neural architecture search for efficient multimodal LLMs: the engine."""

__version__ = "0.1.0"
