"""Asks an exported model a question about an image, or about a clip of sound."""

from __future__ import annotations

from pathlib import Path

from nas.errors import ConfigError
from nas.export import load_export


def ask(export: Path, image_path: Path, question: str, max_new_tokens: int = 16) -> str:
    """The model's greedy answer, in the prompt form it was trained with.

    Raises: ConfigError for an unreadable file or an empty question, RunError where `export` is no export.
    """
    import torch

    if not question.strip():
        raise ConfigError("the question must not be empty; ask something like 'What shape is in the image?'")
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens must be 1 or more, but got {max_new_tokens}")
    model, processor = load_export(export)
    image = processor.read(image_path)
    ids = torch.tensor([processor.prompt(question, processor.fitted_tokens(image))])
    with torch.inference_mode():
        produced = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=processor.pixels([image], fit=True),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=processor.end_id,
            pad_token_id=processor.end_id,
        )
    return processor.decode(produced[0, ids.shape[1] :].tolist())
