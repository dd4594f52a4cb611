"""Models behind OpenAI-compatible servers (vLLM, SGLang, ...): which server has one, and completions of it.

A request is one completion of one prompt, given and got back as token ids. Requests run side by side, are tried again
when the server is busy, breaks down or takes too long, and all end as soon as one has failed for good. Servers and how
they are spoken to (`ra3core.stage.Servers`) decide no result; RA3_SERVER_KEY in the environment is sent as a bearer
token and kept nowhere.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
import httpx
from anyio.from_thread import start_blocking_portal
from pydantic import BaseModel, Field, ValidationError

from ra3core.errors import UserError
from ra3core.stage import Servers

KEY = "RA3_SERVER_KEY"
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before the second attempt, doubled with each; and at most
CONNECT_SECONDS = 10.0
BUSY = frozenset({408, 425, 429})  # statuses below 500 that may be otherwise in a moment

T = TypeVar("T")


class _LogProbs(BaseModel):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []


class _Choice(BaseModel):
    text: str
    finish_reason: Literal["stop", "length"]
    token_ids: list[int] | None = None
    logprobs: _LogProbs | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1, max_length=1)


class _Entry(BaseModel):
    id: str
    root: str | None = None


class _Models(BaseModel):
    data: list[_Entry]


@dataclass(frozen=True)
class Answer:
    """A completion. tokens: what was drawn, the end or stop token too where the server counts it; None: it tells text
    alone. log_probs: of the tokens, nats, as the server tells them. stopped: it ended ahead of its longest length."""

    text: str
    tokens: list[int] | None
    log_probs: list[float] | None
    stopped: bool


Ask = Callable[[Mapping[str, Any]], Awaitable[Answer]]
"""A request's fields beside model and prompt settings that are always the same -> its answer."""


@dataclass(frozen=True)
class ServedModel:
    """A model of one server. name: as requests give it; root: what the server says it was loaded from, if it does."""

    url: str
    name: str
    root: str | None
    servers: Servers

    @property
    def said(self) -> str:
        """For the reader: which server, and what it says of the model."""
        return f"{_shown(self.url)}: {self.name}" + ("" if self.root in (None, self.name) else f" (from {self.root})")

    def each(
        self,
        count: int,
        work: Callable[[Ask, int], Awaitable[T]],
        told: Callable[[int, T], Any] = lambda n, found: None,
    ) -> list[T]:
        """work(ask, 0) .. work(ask, count - 1), `servers.concurrency` at a time; told(n, found) as each is done.

        Raises UserError, and ends the rest, when one of them has failed for good.
        """
        with start_blocking_portal() as portal:  # its own loop in its own thread: the caller may be in one already
            return portal.call(self._each, count, work, told)

    async def _each(
        self, count: int, work: Callable[[Ask, int], Awaitable[T]], told: Callable[[int, T], Any]
    ) -> list[T]:
        found: dict[int, T] = {}
        failed: list[Exception] = []
        limit = anyio.Semaphore(self.servers.concurrency)
        async with _client(self.servers) as client, anyio.create_task_group() as group:

            async def ask(fields: Mapping[str, Any]) -> Answer:
                return await self._answer(client, fields)

            async def one(n: int) -> None:
                async with limit:
                    try:
                        found[n] = await work(ask, n)
                        told(n, found[n])
                    except Exception as error:
                        failed.append(error)
                        group.cancel_scope.cancel()

            for n in range(count):
                group.start_soon(one, n)
        if failed:
            raise failed[0]
        return [found[n] for n in range(count)]

    async def _answer(self, client: httpx.AsyncClient, fields: Mapping[str, Any]) -> Answer:
        body = {
            "model": self.name,
            "n": 1,
            # What a server may take from a hub model's generation_config.json unless it is told.
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "logprobs": 1,
            "return_tokens_as_token_ids": True,  # in the log-probabilities (vLLM)
            "return_token_ids": True,  # beside the text (vLLM from 0.10.2 on, SGLang)
            **fields,
        }
        answer = await _json(client, self.url, "POST", "/completions", body, self.servers.retries)
        [choice] = _parsed(_Completion, answer, self.url, "completion").choices
        tokens, listed = choice.token_ids, choice.logprobs or _LogProbs()
        if tokens is None:
            numbers = [re.fullmatch(r"token_id:(\d+)", token) for token in listed.tokens]
            if all(numbers) and (numbers or not choice.text):
                tokens = [int(number[1]) for number in numbers if number]
        values = [value for value in listed.token_logprobs if value is not None]
        told = tokens is not None and listed.token_logprobs != []
        if tokens is not None and (len(tokens) > fields["max_tokens"] or (told and len(values) != len(tokens))):
            raise UserError(f"{_shown(self.url)}: an answer that is no completion: tokens, lengths do not agree")
        return Answer(choice.text, tokens, values if told else None, choice.finish_reason == "stop")


def find(servers: Servers, names: Sequence[str]) -> ServedModel:
    """The first server that serves a model under one of these names: as its `id`, or as what it was loaded from.

    Raises UserError when no server is named, one is away, or none has the model.
    """
    if not servers.urls:
        raise UserError("engine http: RA3_SERVERS is not set, expected URLs such as http://localhost:8000/v1")
    with start_blocking_portal() as portal:
        listed = [portal.call(_models, servers, url) for url in servers.urls]
    wanted = {name.rstrip("/") for name in names}
    for url, entries in zip(servers.urls, listed, strict=True):
        for entry in entries:
            if wanted & {entry.id.rstrip("/"), (entry.root or "").rstrip("/")}:
                return ServedModel(url, entry.id, entry.root, servers)
    there = ", ".join(entry.id for entries in listed for entry in entries) or "nothing"
    raise UserError(
        f"engine http: no server of RA3_SERVERS serves {names[0]}, found {there}; expected the folder {names[-1]} "
        f"to be served, or its copy under the name {names[0]}"
    )


def names_of(folder: Path) -> list[str]:
    """Names under which a server may serve the model of a folder: of an artifact, of a hub's snapshot; its paths."""
    names = []
    if (folder.parent / "manifest.json").is_file():
        names.append(f"{folder.parent.parent.name}/{folder.parent.name}")
    snapshot = next((part for part in folder.resolve().parts if part.startswith("models--")), None)
    if snapshot is not None:
        names.append(snapshot.removeprefix("models--").replace("--", "/", 1))
    return list(dict.fromkeys([*names, str(folder), str(folder.absolute()), str(folder.resolve())]))


async def _models(servers: Servers, url: str) -> list[_Entry]:
    async with _client(servers) as client:
        return _parsed(_Models, await _json(client, url, "GET", "/models", None, 0), url, "list of models").data


def _client(servers: Servers) -> httpx.AsyncClient:
    key = os.environ.get(KEY)
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(servers.timeout, connect=min(CONNECT_SECONDS, servers.timeout)),
        limits=httpx.Limits(max_connections=servers.concurrency, max_keepalive_connections=servers.concurrency),
    )


async def _json(
    client: httpx.AsyncClient, url: str, method: str, path: str, body: Mapping[str, Any] | None, retries: int
) -> Any:
    """A request's answer; tried again as often as `retries` says. Raises UserError."""
    reason = ""
    for attempt in range(retries + 1):
        pause = min(PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1)
        try:
            response = await client.request(method, url + path, json=body)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
        else:
            if response.is_success:
                try:
                    return response.json()
                except ValueError as error:
                    raise UserError(f"{_shown(url)}: an answer that is no JSON: {response.text[:60]!r}") from error
            reason = f"{response.status_code} {_message(response)}".strip()
            if response.status_code < 500 and response.status_code not in BUSY:
                raise UserError(f"{_shown(url)}: the server refuses: {reason}")
            asked = response.headers.get("retry-after", "")
            pause = min(float(asked), LONGEST_PAUSE) if asked.isdecimal() else pause
        if attempt < retries:
            await anyio.sleep(pause)
    times = "" if retries == 0 else f" after {retries + 1} attempts"
    raise UserError(f"{_shown(url)}: no answer from the server{times} ({reason})")


M = TypeVar("M", bound=BaseModel)


def _parsed(model: type[M], answer: Any, url: str, what: str) -> M:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "answer"
        raise UserError(f"{_shown(url)}: an answer that is no {what}: {where}: {first['msg'].lower()}") from error


def _message(response: httpx.Response) -> str:
    """What a server says is wrong, as far as it says it in one of the usual ways."""
    try:
        said = response.json()
    except ValueError:
        return response.reason_phrase
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    return " ".join(str(said).split())[:200]


def _shown(url: str) -> str:
    """Without a password that may be in it."""
    return str(httpx.URL(url).copy_with(username=None, password=None)) if "@" in url else url
