"""Prompts of a chat model: a user's message through the template of its tokenizer.

A model that `base.chat` marks is prompted so by every stage, with no setting of their own: the mark is in its
tokenizer's configuration (tasks/external.py puts it there), where each model that is trained from it has it too.
"""

from __future__ import annotations

from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from ra3core.config import CHAT_MARK
from ra3core.errors import UserError

SETTING = "base.chat"
REQUEST = "Write this Python program to its end. Answer with the program alone.\n\n"
"""What a user's message begins with whose answer is a program; its beginning follows."""

_ANSWER = "0ANSWER0"


def is_chat(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model is prompted through its template."""
    return bool(tokenizer.init_kwargs.get(CHAT_MARK))


def conversation(tokenizer: PreTrainedTokenizerBase, message: str, setting: str = SETTING) -> tuple[int, ...]:
    """The tokens of a conversation of one user's message, up to where the answer begins.

    Raises UserError, which begins with the setting that asks for it, when the tokenizer has no template.
    """
    text = _rendered(tokenizer, setting, message)
    return tuple(tokenizer.encode(text, add_special_tokens=False))


@lru_cache(maxsize=4)
def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template writes behind an answer; None where it writes none."""
    behind = _rendered(tokenizer, SETTING, "x", _ANSWER).rpartition(_ANSWER)[2]
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return next((i for i in tokenizer.encode(behind, add_special_tokens=False) if i in special), None)


def _rendered(tokenizer: PreTrainedTokenizerBase, setting: str, message: str, answer: str | None = None) -> str:
    if tokenizer.chat_template is None:
        raise UserError(f"{setting}: the model's tokenizer has no chat template, expected an instruction-tuned model's")
    turns = [{"role": "user", "content": message}]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None))
