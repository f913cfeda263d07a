"""Sound as tokens: log-mel spectrograms of windows of a clip, Whisper's encoders, and compression along time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nas.cost_vision import FRAMES_PER_S
from nas.errors import ConfigError
from search_spaces.catalogue import EncoderSpec

SAMPLES_PER_S = 16_000
FRAME = SAMPLES_PER_S // FRAMES_PER_S  # samples from one frame of a spectrogram to the next
Clip = NDArray[np.float32]  # (samples,) in -1..1, SAMPLES_PER_S of them a second


def sound_backbone(spec: EncoderSpec, frames: int, depth: int) -> Any:
    """transformers' own encoder for windows of so many frames, cut after block `depth` (0: whole)."""
    from transformers import AutoConfig, AutoModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    fields = {name: value for name, value in spec.transformers.items() if name != "model_type"}
    config: Any = AutoConfig.for_model(spec.transformers["model_type"], **fields)
    config.max_source_positions = spec.block_tokens(frames)
    if depth:
        config.encoder_layers = depth
    if config.model_type == "whisper":  # whose model would bring its decoder along
        backbone: Any = WhisperEncoder(config)
    else:
        backbone = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    for part in backbone.modules():
        if isinstance(part, nn.Conv1d):  # He et al. 2015: at transformers' 0.02 positions drown what is heard
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return backbone


@cache
def _extractor(mels: int) -> Any:
    """transformers' feature extractor of Whisper (Radford et al. 2022, section 2.2)."""
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(  # type: ignore[no-untyped-call]
        feature_size=mels, sampling_rate=SAMPLES_PER_S, hop_length=FRAME
    )


def sound_settings(frames: int, mels: int) -> dict[str, Any]:
    """preprocessor_config.json of windows of so many frames, as transformers' feature extractors have."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": mels, "sampling_rate": SAMPLES_PER_S,
        "hop_length": FRAME, "n_fft": 400, "chunk_length": -(-frames // FRAMES_PER_S), "padding_value": 0.0,
        "padding_side": "right", "return_attention_mask": False,
    }  # fmt: skip


def log_mel(clips: Sequence[Clip], frames: int, mels: int) -> Tensor:
    """Every window of the clips, one after the other: (windows, mels, frames). The last of a clip ends in silence."""
    windows = [window for clip in clips for window in cut_windows(clip, frames)]
    found = _extractor(mels)(
        windows, sampling_rate=SAMPLES_PER_S, max_length=frames * FRAME, padding="max_length", return_tensors="pt"
    )
    features: Tensor = found["input_features"]
    return features


def cut_windows(clip: Clip, frames: int) -> list[Clip]:
    """Pieces of at most so many frames; one where the clip is empty."""
    size = frames * FRAME
    return [clip[start : start + size] for start in range(0, max(1, len(clip)), size)]


def read_clip(path: Path) -> Clip:
    """A WAV file of 16 bits, as one channel at SAMPLES_PER_S. Raises: ConfigError."""
    import wave

    from scipy.signal import resample_poly

    try:
        with wave.open(str(path)) as file:
            channels, width, rate, count = file.getparams()[:4]
            raw = file.readframes(count)
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError(f"cannot read sound from {path}: {error}; give a WAV file of 16 bits") from error
    if width != 2:
        raise ConfigError(f"{path} must be a WAV file of 16 bits, but has {8 * width}; convert it")
    samples = np.frombuffer(raw, "<i2").reshape(-1, channels).mean(axis=1) / 2**15
    if rate != SAMPLES_PER_S:
        samples = resample_poly(samples, SAMPLES_PER_S, rate)
    return np.asarray(samples, dtype=np.float32)


class TimePooling(nn.Module):
    """Mean or largest value of each `factor` following tokens: (B, N, D) -> (B, N / factor, D). Qwen2-Audio."""

    def __init__(self, factor: int, *, largest: bool = False) -> None:
        super().__init__()
        self.factor, self.largest = factor, largest

    def forward(self, tokens: Tensor) -> Tensor:
        pool = F.max_pool1d if self.largest else F.avg_pool1d
        return pool(tokens.transpose(1, 2), self.factor).transpose(1, 2)


class Stacking(nn.Module):
    """Following tokens side by side: (B, N, D) -> (B, N / factor, factor D). Ultravox; one row's pixel shuffle."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(len(tokens), -1, self.factor * tokens.shape[-1])


def noise(seconds: float) -> Clip:
    """A clip for timing and for comparing logits: its content does not matter."""
    samples = torch.rand(round(seconds * SAMPLES_PER_S), generator=torch.Generator().manual_seed(0)) - 0.5
    clip: Clip = samples.numpy()
    return clip
