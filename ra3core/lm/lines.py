"""Programs as token pieces, cut where the method decides.

A program is the pieces [prompt][line_1]..[line_T][end], each tokenised on its own, so that sums over pieces equal the
whole and a rationale's piece can be put ahead of a line's without touching another token.

Where a line break belongs depends on the tokenizer, and is found out by trying both on a few lines (`LineTokenizer`):

- to the line that it begins: a line's piece is a newline and the line, the end piece a newline and the end token. For
  tokenizers that write a newline and the indentation after it as one token, or each newline alone.
- to the line that it ends (`break_last`): a line's piece is the line and its newline, the prompt's piece has the
  newline that follows it, the end piece is the end token. For tokenizers that write ``:`` and the newline after it as
  one token. Blank lines are part of the piece ahead of them, as in the one token of several newlines.

A line's *header* is what its piece and that of a comment at its indentation begin with in common: newline and
indentation, as far as they are the same tokens (none, where the indentation and the first word are one). After the
header the next token decides: **think** if its text, white space ahead of it left out, starts with ``#`` (it begins a
comment), **act** otherwise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from ra3core.corpora.demonstrations import COMMENT, Demonstration, indentation, rationale_line
from ra3core.errors import UserError
from ra3core.lm.chat import REQUEST, conversation, end_of_turn, is_chat

Tokens = tuple[int, ...]

PROBE = (
    "def f(xs, name):",
    '    """Find it."""',
    "    out = []",
    "    for x in xs:",
    "        # keep what is (really) above 1",
    "        if x > 1:",
    "            out.append(x)",
    "\treturn 12",
    "    name = 'ok'",
    "    return sum(out)",
    "# the end",
    "print(f([2], None))",
)
"""Lines whose tokens tell where a tokenizer's line breaks belong."""

_COMMENT_LINE = re.compile(rf"[\r\n]\s*{COMMENT}")


@lru_cache(maxsize=4)
def token_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The text of each token id within a text (bytes that are no whole character come out as U+FFFD)."""
    ahead = tokenizer.encode("x", add_special_tokens=False)[-1]  # some drop a blank that a text begins with
    ids = [[ahead], *([ahead, i] for i in range(len(tokenizer)))]
    first, *texts = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return tuple(text.removeprefix(first) for text in texts)


@lru_cache(maxsize=4)
def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokens that stand for no text."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset({*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)})


@lru_cache(maxsize=4)
def think_token_ids(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Ids of the tokens that begin a comment when they stand after a line's header."""
    special = set(tokenizer.all_special_ids)
    texts = enumerate(token_texts(tokenizer))
    return tuple(i for i, text in texts if text.lstrip().startswith(COMMENT) and i not in special)


@lru_cache(maxsize=4)
def comment_token_ids(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Ids of the tokens that begin a comment anywhere: those above, and what ends a line and begins a comment."""
    think = set(think_token_ids(tokenizer))
    return tuple(i for i, text in enumerate(token_texts(tokenizer)) if i in think or _COMMENT_LINE.search(text))


@lru_cache(maxsize=4)
def newline_token_ids(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Ids of the tokens that hold a line break: after any of them a comment is over."""
    return tuple(i for i, text in enumerate(token_texts(tokenizer)) if "\n" in text or "\r" in text)


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends a program: a chat model's end of turn, else the end of text; ValueError without."""
    if is_chat(tokenizer) and (found := end_of_turn(tokenizer)) is not None:
        return found
    if not isinstance(tokenizer.eos_token_id, int):
        raise ValueError("the tokenizer has no end-of-text token")
    return tokenizer.eos_token_id


@dataclass(frozen=True)
class TokenizedDemonstration:
    """A demonstration's pieces.

    prompt: its tokens. lines: one piece an expert line. end: its piece.
    headers: number of tokens of each line's header.
    boundaries: the lines ahead of which a rationale may stand and where one token tells think from act.
    newline: the token that ends a line; None where a line's piece begins with its line break.
    """

    demonstration: Demonstration
    prompt: Tokens
    lines: tuple[Tokens, ...]
    end: Tokens
    headers: tuple[int, ...]
    boundaries: tuple[int, ...]
    newline: int | None = None

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

    def header(self, t: int) -> Tokens:
        """Line t's header."""
        return self.lines[t][: self.headers[t]]

    def rest(self, t: int) -> Tokens:
        """Line t's tokens after its header."""
        return self.lines[t][self.headers[t] :]

    def stop(self, t: int) -> int:
        """The token that ends a rationale ahead of line t."""
        return self.lines[t][0] if self.newline is None else self.newline

    def after(self, t: int, terminated: bool) -> Tokens:
        """What stands between a rationale ahead of line t and that line's decision.

        terminated: the rationale's tokens include its line break.
        """
        if self.newline is None:
            return self.header(t)[1:] if terminated else self.header(t)
        return self.header(t) if terminated else (self.newline, *self.header(t))


def undecided(programs: Iterable[TokenizedDemonstration]) -> str | None:
    """How many boundaries are left out because no single token decides there, as a message; None without any."""
    left = asked = 0
    for program in programs:
        asked += len(program.demonstration.boundaries)
        left += len(program.demonstration.boundaries) - len(program.boundaries)
    return f"{left} of {asked} boundaries left out: no single token tells think from act there" if left else None


class LineTokenizer:
    """Tokenises programs piece by piece; equal pieces are tokenised once.

    break_last: whether a line break belongs to the line that it ends. Whichever leaves fewer boundaries undecided on
    PROBE, then whichever gives the tokens that the tokenizer gives the whole text.
    break_ids: the tokens that end a line together with its last characters, such as ``)`` and a newline.
    chat: whether programs are answers in a conversation (ra3core/lm/chat.py).

    Raises UserError for a tokenizer that programs cannot be written with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.think_ids = think_token_ids(tokenizer)
        self.newline_ids = newline_token_ids(tokenizer)
        self.end_id = end_token_id(tokenizer)
        self._pieces: dict[str, Tokens] = {}
        self.chat = False  # while the tokenizer is looked at
        marked = tokenizer.encode("x")
        self._begin: Tokens = (marked[0],) if marked[0] == tokenizer.bos_token_id else ()
        twice = self._plain("x") * 2  # some put a blank ahead of whatever they are given
        self._joins = self.decode(twice) == "xx"
        self.break_last = False
        before = self._fits()
        self.break_last = True
        if before <= self._fits():
            self.break_last = False
        self._check()
        self.chat = is_chat(tokenizer)
        newline = self.encode("\n")
        self._newline = newline[0] if self.break_last else None
        special = special_token_ids(tokenizer)
        texts = enumerate(token_texts(tokenizer)) if self.break_last else ()
        self.break_ids: Tokens = tuple(
            i for i, text in texts if text.endswith("\n") and not re.search(r"[\r\n]", text[:-1]) and i not in special
        )

    def prompt(self, text: str) -> Tokens:
        """The tokens of a program's beginning, which its next line follows.

        They begin with the begin token if the tokenizer has the habit of writing one, and end with the text's line
        break where that belongs to the line that it ends. To a chat model the beginning is given twice: as the user's
        message, and as the beginning of the answer.
        """
        if self.chat:
            return (*conversation(self.tokenizer, REQUEST + text.strip()), *self.encode(text + self.opening))
        return self.text(text + self.opening)

    def question(self, text: str) -> Tokens:
        """The tokens of a prompt that may be no program: the text as it is, to a chat model the user's message."""
        return conversation(self.tokenizer, text) if self.chat else self.text(text)

    def text(self, text: str) -> Tokens:
        """The tokens of a text as it is, with the begin token likewise."""
        return (*self._begin, *self._plain(text))

    @property
    def opening(self) -> str:
        """The beginning of a completion that `prompt` holds already."""
        return "\n" if self.break_last else ""

    def line(self, line: str) -> Tokens:
        """The piece of one line: a newline and the line, or the line and a newline."""
        return self.encode(line + "\n" if self.break_last else "\n" + line)

    @property
    def end(self) -> Tokens:
        """The piece that ends a program."""
        return (self.end_id,) if self.break_last else (*self.encode("\n"), self.end_id)

    def header(self, line: str) -> Tokens:
        """The header of a line."""
        return self.line(line)[: self._header(line)]

    def rationale(self, expert_line: str, rationale: str) -> Tokens:
        """The piece of the comment line ahead of `expert_line`."""
        return self.line(rationale_line(expert_line, rationale))

    def start(self, line: str, opened: bool) -> Tokens:
        """The tokens of a line's first characters. opened: the line break ahead of them is written already."""
        return self.encode(line if opened else "\n" + line)

    def program(self, prompt: str, lines: Sequence[str]) -> list[Tokens]:
        """The pieces [prompt][line_1]..[line_T][end]; rationale lines are lines like any other."""
        if not self.break_last:
            return [self.prompt(prompt), *map(self.line, lines), self.end]
        texts: list[str | None] = [prompt]  # of the pieces; none for a blank line, which the piece ahead of it has
        begun = 0
        for n, line in enumerate(lines, start=1):
            if line.strip():
                texts.append(line)
                begun = n
            else:
                texts.append(None)
                texts[begun] = f"{texts[begun]}\n{line}"
        head, *rest = texts
        pieces = [() if text is None else self.line(text) for text in rest]
        return [self.prompt(head or ""), *pieces, self.end]

    def demonstration(self, demonstration: Demonstration) -> TokenizedDemonstration:
        """A demonstration's pieces, headers and decision points."""
        lines = demonstration.lines
        prompt, *pieces, end = self.program(demonstration.prompt, lines)
        headers = tuple(self._header(line) if piece else 0 for line, piece in zip(lines, pieces, strict=True))
        return TokenizedDemonstration(
            demonstration=demonstration,
            prompt=prompt,
            lines=tuple(pieces),
            end=end,
            headers=headers,
            boundaries=tuple(t for t in demonstration.boundaries if self._decides(lines[t], headers[t])),
            newline=self._newline,
        )

    def encode(self, text: str) -> Tokens:
        """The tokens of a text within a program: nothing is put ahead of it, and no special token is read in it."""
        piece = self._pieces.get(text)
        if piece is None:
            piece = self._pieces[text] = self._plain(text) if self._joins else self._within(text)
        return piece

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of tokens, blanks as they are."""
        found = self.tokenizer.decode(
            list(tokens), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return str(found)

    def completion(self, prompt: Sequence[int], tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text that tokens add to a prompt's: some tokenizers drop a leading blank when decoding them alone."""
        whole = self.decode([*prompt, *tokens], skip_special_tokens)
        before = self.decode(prompt, skip_special_tokens)
        return whole[len(before) :] if whole.startswith(before) else self.decode(tokens, skip_special_tokens)

    def _plain(self, text: str) -> Tokens:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def _within(self, text: str) -> Tokens:
        """The text's tokens after something whose own tokens it does not change."""
        for ahead in ("x", ")", "\n") if text.startswith(("\n", "\r")) else ("\n", "x", ")"):
            first, whole = self._plain(ahead), self._plain(ahead + text)
            if whole[: len(first)] == first and self.decode(whole) == self.decode(first) + text:
                return whole[len(first) :]
        raise UserError(
            f"the tokenizer cannot write {text!r} within a program, expected one that keeps every character"
        )

    def _fits(self) -> tuple[int, int]:
        """How badly pieces fit the tokenizer on PROBE: boundaries that are undecided, then tokens of the whole text
        that pieces do not have."""
        undecided = sum(not self._decides(line, self._header(line)) for line in PROBE[1:] if COMMENT not in line)
        pieces = [token for piece in self.program(PROBE[0], PROBE[1:]) for token in piece]
        whole = self.text("\n".join(PROBE) + "\n")
        return undecided, (Counter(whole) - Counter(pieces)).total()

    def _check(self) -> None:
        """Raises UserError when pieces do not read as the program, or a line break is not one token."""
        pieces = self.program(PROBE[0], PROBE[1:])
        text = self.decode([token for piece in pieces for token in piece][len(self._begin) : -1])
        if text != "\n".join(PROBE) + "\n":
            raise UserError("the tokenizer does not keep blanks and line breaks, expected one that can write a program")
        if len(self.encode("\n")) != 1:
            raise UserError("the tokenizer writes a line break as several tokens, expected one token")

    def _header(self, line: str) -> int:
        """Tokens that the line's piece and that of a comment at its indentation begin with in common."""
        shared = 0
        for a, b in zip(self.line(line), self._comment(line), strict=False):
            if a != b or a in self.think_ids:
                break
            shared += 1
        return shared

    def _decides(self, line: str, header: int) -> bool:
        comment, piece = self._comment(line), self.line(line)
        return (
            (self.break_last or header > 0)
            and header < min(len(piece), len(comment))
            and comment[header] in self.think_ids
            and piece[header] not in self.think_ids
        )

    def _comment(self, line: str) -> Tokens:
        """The piece of a comment line at the line's indentation."""
        return self.line(f"{indentation(line)}{COMMENT} x")
