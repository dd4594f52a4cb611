"""A small OpenAI-compatible server on the loopback: a real model, real requests, and failures to order.

It samples by itself: full passes over all tokens, one generator a request.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import LogitsProcessorList, TopPLogitsWarper


class CompletionServer:
    """Serves `model` under `name` while its `with` block runs.

    tells: how tokens come back: "token_ids" (as newer vLLM and SGLang), "logprobs" (as older vLLM) or "text".
    fail: called with each completion request's number (from 1), ahead of answering it; what it returns is answered
    instead: a status, bytes, "hang" (a second) or "die" (the server is gone).
    heeds: whether logit_bias is heeded.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        name: str,
        root: str | None = None,
        tells: str = "token_ids",
        fail: Callable[[int], int | bytes | str | None] = lambda number: None,
        heeds: bool = True,
        key: str | None = None,
    ) -> None:
        self.model, self.tokenizer, self.name, self.root = model, tokenizer, name, root
        self.tells, self.fail, self.heeds, self.key = tells, fail, heeds, key
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.most = self.now = 0  # requests at a time
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def send(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                outer.list_models(self)

            def do_POST(self) -> None:
                outer.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> CompletionServer:
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def list_models(self, handler: Any) -> None:
        if self.key is not None and handler.headers.get("Authorization") != f"Bearer {self.key}":
            handler.send(401, b'{"error": {"message": "Unauthorized"}}')
            return
        entry = {"id": self.name, "object": "model"} | ({"root": self.root} if self.root else {})
        handler.send(200, json.dumps({"object": "list", "data": [entry]}).encode())

    def answer(self, handler: Any) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.requests.append(body)
            number = len(self.requests)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            wrong = self.fail(number)
            if wrong == "hang":
                time.sleep(1)
                wrong = 503
            if wrong == "die":
                handler.close_connection = True
                threading.Thread(target=self.__exit__, daemon=True).start()
                return
            if isinstance(wrong, bytes):
                handler.send(200, wrong)
            elif wrong is not None:
                handler.send(int(wrong), json.dumps({"error": {"message": "out of order"}}).encode())
            else:
                with self.lock:
                    found = self.complete(body)
                handler.send(200, json.dumps({"object": "text_completion", "choices": [found]}).encode())
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self.lock:
                self.now -= 1

    @torch.no_grad()
    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """One choice."""
        assert body["model"] == self.name and body["n"] == 1
        generator = torch.Generator().manual_seed(body["seed"])
        bias = torch.zeros(self.model.config.vocab_size)
        for token, by in (body.get("logit_bias") or {}).items() if self.heeds else ():
            bias[int(token)] = by
        nucleus = LogitsProcessorList([TopPLogitsWarper(body["top_p"])] if body["top_p"] < 1 else [])
        drawn: list[int] = []
        raw: list[float] = []
        reason, text = "length", ""
        while len(drawn) < body["max_tokens"]:
            logits = self.model(torch.tensor([[*body["prompt"], *drawn]])).logits[0, -1].float()
            scores = logits + bias
            if body["temperature"] > 0:
                scores = nucleus(None, scores[None] / body["temperature"])[0]
                token = int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
            else:
                token = int(scores.argmax())
            drawn.append(token)
            raw.append(float(logits.log_softmax(-1)[token]))
            if token == self.tokenizer.eos_token_id:
                reason = "stop"
                break
            text = str(self.tokenizer.decode(drawn))
            places = [place for stop in body.get("stop", ()) if (place := text.find(stop)) >= 0]
            if places:
                reason, text = "stop", text[: min(places)]
                break
        found: dict[str, Any] = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        if self.tells == "token_ids" and body.get("return_token_ids"):
            found["token_ids"] = drawn
        if self.tells != "text" and body.get("logprobs") is not None:
            as_ids = body.get("return_tokens_as_token_ids")
            names = [f"token_id:{t}" if as_ids else self.tokenizer.decode([t]) for t in drawn]
            found["logprobs"] = {"tokens": names, "token_logprobs": raw, "top_logprobs": None}
        return found
