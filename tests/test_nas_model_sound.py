"""Sound in place of pictures: transformers' own encoders and spectrograms, and everything behind them as it is."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

import hardware_profiles
import nas.workload
import search_spaces
from nas.ask import ask
from nas.cost import cost
from nas.cost_many import cost_of_candidates
from nas.errors import ConfigError
from nas.export import export_hf
from nas.latency.blocks import BlockTiming
from nas.latency.compose import compose
from nas.latency.estimate import estimate
from nas.latency.jobs import JobFactory
from nas.latency.terms import amounts, needed
from nas.model import MultimodalLM, Processor, Sources, build
from nas.model.sound import SAMPLES_PER_S, Stacking, TimePooling, cut_windows, log_mel, noise, read_clip
from nas.train.llava import Stages, read_conversations, train_stages
from search_spaces import Candidate, SpaceError, catalogue
from search_spaces.rules import buildable

FIELDS = {
    "encoder": "whisper-micro", "resolution": 500, "projector": "mlp", "compression": "pixel-shuffle",
    "compression_factor": 5, "lm": "llama-micro", "lm_depth": 2,
}  # fmt: skip
HEARD = Candidate.model_validate(FIELDS)
CLIP = nas.workload.load("audio-clip")


@pytest.fixture(scope="module")
def model() -> MultimodalLM:
    return build(HEARD, weights="random")


def write_wav(path: Path, seconds: float, rate: int = SAMPLES_PER_S, channels: int = 1) -> Path:
    samples = np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 440 / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat((samples * 2**14).astype("<i2"), channels).tobytes())
    return path


def test_a_spectrogram_is_that_of_transformers_and_its_windows_follow_each_other() -> None:
    clip = noise(12.5)
    theirs = WhisperFeatureExtractor(feature_size=80, chunk_length=5)
    found = log_mel([clip, noise(1)], 500, 80)
    assert found.shape == (4, 80, 500)
    for place, window in enumerate([clip[:80_000], clip[80_000:160_000], clip[160_000:], noise(1)]):
        expected = theirs(window, sampling_rate=SAMPLES_PER_S, return_tensors="pt")["input_features"][0]
        torch.testing.assert_close(found[place], expected)
    assert len(cut_windows(clip[:0], 500)) == 1


def test_any_wav_file_becomes_one_channel_at_one_rate(tmp_path: Path) -> None:
    plain = read_clip(write_wav(tmp_path / "a.wav", 1))
    other = read_clip(write_wav(tmp_path / "b.wav", 1, rate=8_000, channels=2))
    assert plain.shape == other.shape == (SAMPLES_PER_S,)
    assert np.abs(plain[100:-100] - other[100:-100]).max() < 0.01
    (tmp_path / "c.wav").write_bytes(b"no sound")
    with pytest.raises(ConfigError, match=r"cannot read sound from .*c.wav.*give a WAV file"):
        read_clip(tmp_path / "c.wav")


@pytest.mark.parametrize("factor", [2, 5])
def test_compression_along_time_takes_following_tokens_together(factor: int) -> None:
    tokens = torch.randn(2, 10, 3)
    groups = tokens.reshape(2, -1, factor, 3)
    torch.testing.assert_close(TimePooling(factor)(tokens), groups.mean(2))
    torch.testing.assert_close(TimePooling(factor, largest=True)(tokens), groups.amax(2))
    torch.testing.assert_close(Stacking(factor)(tokens), groups.flatten(2))


def test_the_encoder_is_transformers_own_with_its_weights(tmp_path: Path) -> None:
    """Of a window as long as Whisper's the tokens are Whisper's; a shorter one has the first of its positions."""
    sizes = {
        name: value for name, value in catalogue.encoder("whisper-micro").transformers.items() if name != "model_type"
    }
    config = WhisperConfig(
        **sizes, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64, vocab_size=50, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    whole = WhisperModel(config).eval()
    whole.save_pretrained(tmp_path)
    sources = Sources(encoder=str(tmp_path))
    spectrogram = torch.randn(1, 80, 3000)
    own = build(HEARD.model_copy(update={"resolution": 3000}), sources=sources)
    with torch.inference_mode():
        expected = whole.encoder(spectrogram).last_hidden_state
        torch.testing.assert_close(own.vision_tokens(spectrogram), expected, rtol=0, atol=0)
    short = build(HEARD, sources=sources)
    positions = short.vision.backbone.embed_positions.weight
    torch.testing.assert_close(positions, whole.encoder.embed_positions.weight[:250], rtol=0, atol=0)
    assert str(short.reports["encoder"]).endswith("1 cut, 0 unused")


@pytest.mark.parametrize("name", ["hf:whisper", "hf:voxtral_encoder"])
def test_encoders_of_whispers_form_need_no_entry(name: str) -> None:
    spec = catalogue.encoder(name)
    assert (spec.stride, spec.family) == (2, "vit")
    assert spec.mels == 80 if name == "hf:whisper" else spec.mels == 128
    if name == "hf:whisper":
        tiny = catalogue.encoder("whisper-tiny")
        assert (spec.params, spec.layers, spec.heads, spec.ffn) == (tiny.params, tiny.layers, tiny.heads, tiny.ffn)


def test_windows_of_sound_are_counted_and_cost_what_is_built(model: MultimodalLM) -> None:
    found = amounts(HEARD, CLIP)
    assert (found.photos, found.visual, found.prompt) == (6, 300, 332)
    bill = cost(HEARD, CLIP)
    assert bill.params == model.num_parameters()
    assert cost_of_candidates([HEARD], CLIP).row(0) == bill
    longer = CLIP.model_copy(update={"seconds": 31})
    assert amounts(HEARD, longer).photos == 7


def test_rules_keep_from_sound_what_needs_a_picture() -> None:
    for changes in (
        {"projector": "ldp-v2", "compression": "avgpool", "compression_factor": 25},
        {"compression": "visionzip"},
        {"tiling": "grid", "tiles": 2},
        {"second_encoder": "vit-micro", "fusion": "channel", "resolution": 1120},
    ):
        assert "sound" in str(buildable(HEARD.model_copy(update=changes)))
    seen = search_spaces.load("micro").baseline_candidate
    assert "pictures" in str(
        buildable(seen.model_copy(update={"second_encoder": "whisper-micro", "fusion": "channel"}))
    )


def test_a_workload_and_the_encoders_of_a_space_are_of_one_sense() -> None:
    assert nas.workload.of_space(search_spaces.load("audio-edge")) == CLIP
    assert nas.workload.of_space(search_spaces.load("video-edge")).name == "video"
    assert nas.workload.of_encoder("whisper-tiny") == CLIP
    with pytest.raises(ConfigError, match=r"vqa-short has pictures, .* whisper-tiny takes sound; .*audio-clip"):
        nas.workload.of_space(search_spaces.load("audio-edge"), "vqa-short")
    with pytest.raises(ConfigError, match="audio-clip has sound, but encoder conv-micro takes pictures"):
        nas.workload.of_space(search_spaces.load("micro"), "audio-clip")


def test_latency_of_sound_is_composed_of_blocks_that_run_and_estimated_elsewhere() -> None:
    blocks = {block.key: block for block in needed(HEARD, CLIP)}
    heard = {block.kind: block for block in blocks.values()}
    shapes = {kind: tuple(JobFactory().job(heard[kind]).run().shape) for kind in ("preprocess", "vision", "projector")}  # type: ignore[attr-defined]
    assert shapes == {"preprocess": (6, 80, 500), "vision": (6, 250, 64), "projector": (6, 50, 64)}
    timings = {key: BlockTiming({}, (1.0,) * 4, 1.0, "", noisy=False) for key in blocks}
    assert compose(HEARD, CLIP, timings).vision_ms == 1.0
    guess = estimate(HEARD, CLIP, hardware_profiles.load("raspberry-pi-5-8gb"))
    assert 0 < guess.low_ms < guess.latency_ms < guess.high_ms


def test_an_export_that_hears_reloads_answers_and_trains(model: MultimodalLM, tmp_path: Path) -> None:
    assert export_hf(model, Processor.of(HEARD), tmp_path / "export", card={}) == 0.0
    loaded = WhisperFeatureExtractor.from_pretrained(tmp_path / "export")
    assert (loaded.feature_size, loaded.nb_max_frames) == (80, 500)
    write_wav(tmp_path / "tone.wav", 7)  # two windows
    assert isinstance(ask(tmp_path / "export", tmp_path / "tone.wav", "What is heard?", 2), str)
    (tmp_path / "data.json").write_text(
        '[{"sound": "tone.wav", "conversations": [{"from": "human", "value": "<sound>\\nWhat is heard?"}, '
        '{"from": "gpt", "value": "a tone"}]}]'
    )
    stages = Stages.model_validate(
        {"stages": [{"name": "alignment", "trains": ["projector"], "steps": 2, "batch": 1, "rate": 1e-3}]}
    )
    trained = build(HEARD, weights="random")
    found = train_stages(trained, Processor.of(HEARD), read_conversations(tmp_path), stages, 0, lambda *_: None)
    assert found["alignment"]["last_loss"] < found["alignment"]["first_loss"]


def test_an_unknown_encoder_of_sound_names_the_near_miss() -> None:
    with pytest.raises(SpaceError, match="whisper-base"):
        catalogue.encoder("whisper-bas")
