"""The embedded model's tokenizer: whole words of the corpus, bytes for everything else.

A stock byte-level tokenizer (`PreTrainedTokenizerFast`, loaded by AutoTokenizer). A newline with the indentation that
follows is one token, ``#`` is one token, and so is every word that the corpus holds often; any other text falls back
to its bytes, so nothing is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
PAD = "<|pad|>"
PATTERN = r"\n *|#| ?\w+| ?[^\s\w#]+|\s+"


def train_tokenizer(texts: Iterable[str], min_count: int = 20) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is 256 bytes, two special tokens and every pre-token seen `min_count` times."""
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in pre_tokenizer.pre_tokenize_str(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted(word for word, count in counts.items() if count >= min_count and len(word) > 1)
    vocabulary = {token: i for i, token in enumerate([END, PAD, *alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )
