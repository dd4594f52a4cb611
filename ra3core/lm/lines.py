"""Programs as token pieces, cut where the method decides.

A program is the pieces [prompt][line_1]..[line_T][end]. A line's piece is a newline and the line, the end piece a
newline and the end-of-text token. Pieces are tokenised separately, so sums over lines equal the whole.

A line's piece begins with its *header*, the tokens of the newline and the indentation. After the header the next
token decides: **think** if its text, white space ahead of it left out, starts with ``#`` (it begins a comment), **act**
otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from ra3core.corpora.demonstrations import COMMENT, Demonstration, indentation, rationale_line

Tokens = tuple[int, ...]


@lru_cache(maxsize=4)
def token_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The text of each token id on its own (bytes that are no whole character come out as U+FFFD)."""
    ids = [[i] for i in range(len(tokenizer))]
    return tuple(tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@lru_cache(maxsize=4)
def think_token_ids(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Ids of the tokens that begin a comment when they stand after a line's header."""
    special = set(tokenizer.all_special_ids)
    texts = enumerate(token_texts(tokenizer))
    return tuple(i for i, text in texts if text.lstrip().startswith(COMMENT) and i not in special)


@lru_cache(maxsize=4)
def newline_token_ids(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Ids of the tokens that hold a line break: after any of them a comment is over."""
    return tuple(i for i, text in enumerate(token_texts(tokenizer)) if "\n" in text or "\r" in text)


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends a program; ValueError without one."""
    if not isinstance(tokenizer.eos_token_id, int):
        raise ValueError("the tokenizer has no end-of-text token")
    return tokenizer.eos_token_id


@dataclass(frozen=True)
class TokenizedDemonstration:
    """A demonstration's pieces.

    prompt: its tokens. lines: one piece an expert line. end: newline and end-of-text.
    headers: number of tokens of each line's header.
    boundaries: the lines ahead of which a rationale may stand and where one token tells think from act.
    """

    demonstration: Demonstration
    prompt: Tokens
    lines: tuple[Tokens, ...]
    end: Tokens
    headers: tuple[int, ...]
    boundaries: tuple[int, ...]

    def tokens(self, rationales: dict[int, Tokens] | None = None) -> list[int]:
        """The whole program, with the rationale pieces given by line index."""
        ids = list(self.prompt)
        for t, line in enumerate(self.lines):
            ids += (rationales or {}).get(t, ())
            ids += line
        return [*ids, *self.end]

    def prefix(self, t: int, rationales: dict[int, Tokens] | None = None) -> list[int]:
        """Everything before line t's decision: earlier pieces and the header of line t.

        Rationales ahead of lines before t are woven in; one ahead of line t itself too, which makes the header the one
        of the expert's line after it.
        """
        ids = list(self.prompt)
        for u, line in enumerate(self.lines[: t + 1]):
            ids += (rationales or {}).get(u, ())
            ids += line if u < t else line[: self.headers[t]]
        return ids

    def rest(self, t: int) -> Tokens:
        """Line t's tokens after its header."""
        return self.lines[t][self.headers[t] :]


class LineTokenizer:
    """Tokenises programs piece by piece; equal pieces are tokenised once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.think_ids = think_token_ids(tokenizer)
        self.newline_ids = newline_token_ids(tokenizer)
        self.end_id = end_token_id(tokenizer)
        self._pieces: dict[str, Tokens] = {}
        marked = tokenizer.encode("x")
        self._begin: Tokens = (marked[0],) if marked[0] == tokenizer.bos_token_id else ()

    def prompt(self, text: str) -> Tokens:
        """The tokens of a prompt, with the begin token if the tokenizer has the habit of writing one."""
        return (*self._begin, *self._encode(text))

    def line(self, line: str) -> Tokens:
        """The piece of one line: a newline and the line."""
        return self._encode("\n" + line)

    @property
    def end(self) -> Tokens:
        """The piece that ends a program."""
        return (*self._encode("\n"), self.end_id)

    def header(self, line: str) -> Tokens:
        """The newline and the indentation of a line, as its piece has them."""
        return self.line(line)[: self._header(line)]

    def rationale(self, expert_line: str, rationale: str) -> Tokens:
        """The piece of the comment line ahead of `expert_line`."""
        return self.line(rationale_line(expert_line, rationale))

    def program(self, prompt: str, lines: Sequence[str]) -> list[Tokens]:
        """The pieces [prompt][line_1]..[line_T][end]; rationale lines are lines like any other."""
        return [self.prompt(prompt), *(self.line(line) for line in lines), self.end]

    def demonstration(self, demonstration: Demonstration) -> TokenizedDemonstration:
        """A demonstration's pieces, headers and decision points."""
        lines = demonstration.lines
        headers = tuple(self._header(line) for line in lines)
        return TokenizedDemonstration(
            demonstration=demonstration,
            prompt=self.prompt(demonstration.prompt),
            lines=tuple(self.line(line) for line in lines),
            end=self.end,
            headers=headers,
            boundaries=tuple(t for t in demonstration.boundaries if self._decides(lines[t], headers[t])),
        )

    def _encode(self, text: str) -> Tokens:
        piece = self._pieces.get(text)
        if piece is None:
            piece = self._pieces[text] = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        return piece

    def _header(self, line: str) -> int:
        """Tokens that the line's piece and that of a comment at its indentation begin with in common."""
        comment = self.line(indentation(line) + COMMENT)
        shared = 0
        for a, b in zip(self.line(line), comment, strict=False):
            if a != b or a in self.think_ids:
                break
            shared += 1
        return shared

    def _decides(self, line: str, header: int) -> bool:
        comment = self.line(indentation(line) + COMMENT)
        piece = self.line(line)
        return (
            0 < header < min(len(piece), len(comment))
            and comment[header] in self.think_ids
            and piece[header] not in self.think_ids
        )
