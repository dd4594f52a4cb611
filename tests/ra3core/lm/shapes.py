"""Small tokenizers of the shapes that families of models have: each family's normalizer, pre-tokenizer, model kind and
decoder, trained here on a little Python."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIZE = 1_200


@functools.cache
def corpus() -> list[str]:
    """Modules of the standard library, with comments, blank lines and line ends as they are."""
    names = ("heapq.py", "textwrap.py", "bisect.py", "shlex.py", "fnmatch.py", "random.py", "statistics.py")
    folder = Path(textwrap.__file__).parent
    extra = ["#include <x>\n\n    # keep\n\t# tab\n\t\treturn 1\n", "x = 1\n\n\n\n# end\n    # a\n        # b\n"] * 20
    return [(folder / name).read_text() for name in names] + extra


def _bpe(
    inner: Tokenizer, special: list[str], alphabet: list[str] | None = None, texts: list[str] | None = None
) -> Tokenizer:
    inner.train_from_iterator(
        texts or corpus(),
        trainers.BpeTrainer(
            vocab_size=SIZE,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet is None else alphabet,
            limit_alphabet=400,
            show_progress=False,
        ),
    )
    return inner


def _byte_level(*splits: Any, regex: bool = False, special: list[str], begin: str | None = None) -> Tokenizer:
    inner = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    inner.pre_tokenizer = pre_tokenizers.Sequence([*splits, level]) if splits else level
    inner.decoder = decoders.ByteLevel()
    _bpe(inner, special)
    if begin is not None:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, special.index(begin))]
        )
    return inner


def _split(pattern: str) -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def gpt2() -> PreTrainedTokenizerFast:
    inner = _byte_level(regex=True, special=["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


def starcoder() -> PreTrainedTokenizerFast:
    """Digits one by one, then GPT-2's pattern: a newline and all of an indentation but its last blank are one token."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner = _byte_level(digits, regex=True, special=["<|endoftext|>", "<fim_prefix>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")


def llama3() -> PreTrainedTokenizerFast:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    inner = _byte_level(_split(LLAMA3), special=special, begin=special[0])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=special[0], eos_token=special[1])


def qwen2() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    inner = _byte_level(_split(QWEN), special=special)
    inner.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=special[0], pad_token=special[0])


def deepseek_coder() -> PreTrainedTokenizerFast:
    """Every line break is a pre-token of its own."""
    splits = [_split(p) for p in (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+")]
    inner = _byte_level(*splits, pre_tokenizers.Digits(individual_digits=True), special=["<bos>", "<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>")


def deepseek_v3() -> PreTrainedTokenizerFast:
    splits = [_split(p) for p in (r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK_V3)]
    inner = _byte_level(*splits, special=["<bos>", "<eos>"], begin="<bos>")
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>")


def merged(comment: str = r" ?[^\s\w]+") -> PreTrainedTokenizerFast:
    """A newline, the indentation and the first character after it are one token, ``#`` too."""
    split = _split(rf"\n[ \t]*\S?| ?\w+|{comment}|\s+(?!\S)|\s")
    inner = _byte_level(split, special=["<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")


def undecided() -> PreTrainedTokenizerFast:
    """So as well, and a blank belongs to the word after it but not to ``#``: indentations differ."""
    return merged(r"[^\s\w]+")


_BYTES = [f"<0x{i:02X}>" for i in range(256)]


def _sentencepiece(*, prepend: bool) -> Tokenizer:
    """BPE over characters with bytes for the rest, line breaks too. prepend: a blank ahead of every text."""
    inner = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    blank = normalizers.Replace(" ", "▁")
    ahead = normalizers.Prepend("▁")
    # Merges are learnt word by word, as SentencePiece does it; then the text is one pre-token.
    inner.normalizer = normalizers.Sequence([ahead, blank]) if prepend else blank
    inner.pre_tokenizer = _split(r"▁?[^▁]+|▁+(?=▁)|▁+")
    letters = sorted({c for text in corpus() for c in text if c.isprintable() and c != " "} | {"▁"})
    _bpe(
        inner,
        ["<unk>", "<s>", "</s>", *_BYTES],
        letters,
        [line for text in corpus() for line in re.split(r"[\n\t]+", text)],
    )
    inner.pre_tokenizer = None if prepend else pre_tokenizers.Split(" ", "merged_with_previous")
    tail: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*tail, decoders.Strip(" ", 1, 0)] if prepend else tail)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return inner


def llama2() -> PreTrainedTokenizerFast:
    inner = _sentencepiece(prepend=True)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def mistral() -> PreTrainedTokenizerFast:
    """Metaspace ahead of the first word only, in place of the normalizer."""
    inner = _sentencepiece(prepend=True)
    inner.normalizer = None  # type: ignore[assignment]
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def gemma() -> PreTrainedTokenizerFast:
    inner = _sentencepiece(prepend=False)
    runs = ["\n" * n for n in range(1, 9)] + ["▁" * n for n in range(2, 17)] + ["\t" * n for n in range(1, 5)]
    inner.add_tokens([AddedToken(run, normalized="▁" in run, special=False) for run in runs])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram() -> PreTrainedTokenizerFast:
    """Pieces with probabilities: line breaks are pieces too, and so are an indentation with a word or with ``#``."""
    vocabulary: dict[str, int] = _sentencepiece(prepend=False).get_vocab()
    frequent = ["\n", "\n\n", "\t", "▁▁▁▁#", "▁▁▁▁▁▁▁▁#", "▁▁▁▁return", "▁#"]
    words = [word for word in sorted(vocabulary, key=vocabulary.__getitem__) if len(word) < 6 and word not in frequent]
    pieces = [("<unk>", 0.0), ("<s>", -1e3), ("</s>", -1e3), *((byte, -30.0) for byte in _BYTES)]
    pieces += [(word, -3.0) for word in frequent]
    pieces += [(word, -4.0 - rank / 100) for rank, word in enumerate(words) if word not in ("<unk>", "<s>", "</s>")]
    inner = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    inner.add_special_tokens(["<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


SHAPES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt2": gpt2,
    "starcoder": starcoder,
    "llama3": llama3,
    "qwen2": qwen2,
    "deepseek-coder": deepseek_coder,
    "deepseek-v3": deepseek_v3,
    "merged": merged,
    "undecided": undecided,
    "llama2": llama2,
    "mistral": mistral,
    "gemma": gemma,
    "unigram": unigram,
}


@functools.cache
def shape(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a shape, trained once."""
    return SHAPES[name]()


def checkpoint(name: str, folder: Path) -> None:
    """A folder that AutoModelForCausalLM and AutoTokenizer load: a tiny Qwen2 or Llama with random weights."""
    tokenizer = shape(name)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 3,  # padded, as real ones are
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "qwen2":
            Qwen2ForCausalLM(Qwen2Config(**settings)).save_pretrained(folder)
        else:
            LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))


TEMPLATES = {
    "qwen2": (
        "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for turn in messages %}<|start_header_id|>{{ turn.role }}<|end_header_id|>\n\n"
        "{{ turn.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
}
TURN_ENDS = {"qwen2": "<|im_end|>", "llama3": "<|eot_id|>"}


def add_template(name: str, folder: Path) -> None:
    """Make the tokenizer of a checkpoint a chat model's."""
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
