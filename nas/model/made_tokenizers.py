"""Tokenizers without files: one token a byte, or one a word of a fixed list."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>", "<|image|>", "<r5>", "<r6>", "<r7>"]
# All that easy-vqa and the emoji grids say. The order is the ids: add at the end only.
_LIST = """
? a any at behind beside category center color contain does how image in is left many middle no not of present right
shape the there top bottom what which yes circle rectangle triangle black blue brown gray green orange pink purple
red teal white yellow animal food vehicle object dog fish elephant turtle penguin banana grapes hamburger doughnut
watermelon bicycle rocket automobile tractor bus key guitar balloon hammer trumpet 0 1 2 3 4 5 6 7 8 9 contained on
above below unknown
"""
WORDS = _LIST.split()


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level tokenizer of 8 specials and the 256 bytes: ids 0-7, then one token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = {token: index for index, token in enumerate([*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return _wrapped(core)


def word_tokenizer() -> PreTrainedTokenizerBase:
    """A word-level tokenizer of 8 specials and `WORDS`; punctuation stands alone, other words become `unknown`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocab = {token: index for index, token in enumerate([*SPECIALS, *WORDS])}
    core = Tokenizer(models.WordLevel(vocab=vocab, unk_token="unknown"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return _wrapped(core)


def _wrapped(core: Any) -> PreTrainedTokenizerBase:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|image|>"],
    )


MADE: dict[str, Callable[[], PreTrainedTokenizerBase]] = {"bytes": byte_tokenizer, "words": word_tokenizer}
