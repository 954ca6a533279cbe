"""A provider on 127.0.0.1 that speaks OpenAI chat completions over real HTTP and keeps its own bill.

Owns the wire format, the script of replies and its own unit prices. Must not know the budget library:
its bill is the second opinion the demo and the tests compare with, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import socketserver
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact, InvalidOperation
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, Literal, Self

__all__ = ["BillItem", "ChatWire", "LoopbackProvider", "RecordedRequest", "Reply", "ToolCall", "quarter", "sse"]

PRICES: dict[str, dict[str, str]] = {
    "gpt-4o-mini": {"input": "0.15", "cached": "0.075", "output": "0.60"},
    "gpt-4o": {"input": "2.50", "cached": "1.25", "output": "10"},
    "gpt-5": {"input": "1.25", "cached": "0.125", "output": "10", "priority": "2", "flex": "0.5"},
    "gpt-4.1-nano": {"input": "0.10", "cached": "0.025", "output": "0.40"},
}
"""USD per million tokens for `input`, `cached` and `output`; any other key is a service tier's factor."""

_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])
_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
_PLAIN_TIERS = ("auto", "default", "standard")
_ERROR_TYPES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}


@dataclass(frozen=True)
class ToolCall:
    """A tool call the model asks for; `arguments` as text is sent as it is, so it can be malformed JSON."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str | None = None

    @property
    def arguments_json(self) -> str:
        """The arguments as they travel."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(dict(self.arguments))


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server answers to one request.

    `usage`, `body` and `error` change what the server says; what it bills follows the token fields alone.

    Attributes:
        text: The assistant's text; streamed word by word.
        tool_calls: Tool calls; they turn a `finish_reason` of "stop" into "tool_calls".
        input_tokens: All input tokens, cached ones included; None counts 3 + a quarter of the bytes sent.
        output_tokens: Output tokens of all choices, reasoning included; None counts a quarter of the bytes.
        cached_tokens: Input tokens read from the cache.
        reasoning_tokens: Output tokens spent on reasoning.
        service_tier: The tier served and billed; None leaves it out of the response.
        model: The model named in the response and billed; None is the requested one.
        status: HTTP status; from 400 on `error` is sent and nothing is billed.
        error: The whole body of an error; None is a plausible one.
        headers: Extra response headers, such as "retry-after".
        delay_s: Seconds before the response begins.
        chunk_delay_s: Seconds between the chunks of a stream.
        usage: "auto" reports the tokens above, a mapping or None (JSON null) is sent instead, "omit" sends none.
        body: The whole body of a response that is not streamed.
        finish_reason: Why generation ended.
        cut_after_chunks: Kill the connection after this many chunks of a stream; a plain body is one chunk.
    """

    text: str = "ok"
    tool_calls: tuple[ToolCall, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    service_tier: str | None = "default"
    model: str | None = None
    status: int = 200
    error: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    usage: Mapping[str, Any] | Literal["auto", "omit"] | None = "auto"
    body: Mapping[str, Any] | None = None
    finish_reason: str = "stop"
    cut_after_chunks: int | None = None


@dataclass(frozen=True)
class RecordedRequest:
    """A request as it arrived: `number` counts from 1, `received_at` is `time.monotonic()` in seconds."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    received_at: float


@dataclass(frozen=True)
class BillItem:
    """One line of the bill: tokens (`input_tokens` includes the cached ones) and exact USD."""

    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: Decimal


_Answer = tuple[int, bool, list[bytes], Reply]  # status, streamed or not, the bytes to send, how to send them


def sse(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """One server-sent event."""
    return (f"event: {event}\n" if event else "").encode() + f"data: {json.dumps(data)}\n\n".encode()


def quarter(value: Any) -> int:
    """Tokens of a JSON value: a quarter of the bytes of all its strings, and one per number."""
    return -(-_weigh(value) // 4)


def _weigh(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (Mapping, Sequence)):
        return sum(map(_weigh, value.values() if isinstance(value, Mapping) else value))
    return 0 if value is None or isinstance(value, bool) else 4


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return functools.reduce(_EXACT.add, amounts, Decimal(0))


class ChatWire:
    """One exchange as OpenAI chat completions; a subclass speaks another endpoint."""

    input_keys: ClassVar[tuple[str, ...]] = ("messages", "tools")

    def __init__(self, request: RecordedRequest, reply: Reply, prices: Mapping[str, Mapping[str, str]]) -> None:
        self.request, self.reply, self.prices = request, reply, prices
        self.id, self.created = f"chatcmpl-{request.number}", int(time.time())
        self.model = reply.model or str(request.body.get("model"))
        self.choices = self.count_choices()
        self.input_tokens = self.count_input() if reply.input_tokens is None else reply.input_tokens
        self.output_tokens = self.count_output() if reply.output_tokens is None else reply.output_tokens

    def count_choices(self) -> int:
        """How many answers were asked for."""
        return int(self.request.body.get("n") or 1)

    def count_input(self) -> int:
        """Input tokens where the reply names none."""
        return 3 + quarter([self.request.body.get(key) for key in self.input_keys])

    def count_output(self) -> int:
        """Output tokens of all choices where the reply names none."""
        calls = [(call.name, call.arguments_json) for call in self.reply.tool_calls]
        return self.choices * max(1, quarter([self.reply.text, calls])) + self.reply.reasoning_tokens

    def finish_reason(self) -> str:
        """Why generation ended, in this endpoint's words."""
        why = self.reply.finish_reason
        return "tool_calls" if self.reply.tool_calls and why == "stop" else why

    def bill(self) -> BillItem:
        """What this exchange costs, at this server's own prices."""
        total, cached, output = self.input_tokens, self.reply.cached_tokens, self.output_tokens
        return BillItem(self.model, total, cached, output, self.usd(input=total - cached, cached=cached, output=output))

    def usd(self, **tokens: int) -> Decimal:
        """Exact USD for token counts named as in the price list.

        Raises:
            LookupError: No price for the model, the kind of token or the service tier.
            ValueError: A negative count, such as more cached than input tokens.
        """
        price = self.prices.get(self.model) or self.prices.get(_DATED.sub("", self.model))
        if price is None:
            raise LookupError(f"The loopback provider has no price for model {self.model!r}; pass prices=.")
        if min(tokens.values()) < 0:
            raise ValueError(f"The reply's token counts do not add up: {tokens}.")
        tier = None if self.reply.service_tier in _PLAIN_TIERS else self.reply.service_tier
        counted = {name: count for name, count in tokens.items() if count}
        if missing := [name for name in (*counted, tier) if name is not None and name not in price]:
            raise LookupError(f"The loopback provider has no price {missing} for model {self.model!r}.")
        parts = (_EXACT.multiply(Decimal(price[name]), Decimal(count)) for name, count in counted.items())
        return _EXACT.scaleb(_EXACT.multiply(_sum(parts), Decimal(price[tier] if tier else 1)), -6)

    def usage(self) -> Mapping[str, Any] | None:
        """The usage object as reported (which need not be the truth: see `Reply.usage`)."""
        return self.true_usage() if isinstance(self.reply.usage, str) else self.reply.usage

    def true_usage(self) -> dict[str, Any]:
        """The usage object that says what is billed."""
        total = self.input_tokens + self.output_tokens
        usage = {"prompt_tokens": self.input_tokens, "completion_tokens": self.output_tokens, "total_tokens": total}
        prompt = {"cached_tokens": self.reply.cached_tokens, "audio_tokens": 0}
        completion = {"reasoning_tokens": self.reply.reasoning_tokens, "audio_tokens": 0}
        return {**usage, "prompt_tokens_details": prompt, "completion_tokens_details": completion}

    def head(self, kind: str) -> dict[str, Any]:
        """The fields every object of this exchange carries."""
        tier = {} if self.reply.service_tier is None else {"service_tier": self.reply.service_tier}
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, **tier}

    def words(self) -> list[str]:
        """The text in the pieces it is streamed in."""
        return re.findall(r"\s*\S+\s*$|\s*\S+|\s+", self.reply.text)

    def body(self) -> dict[str, Any]:
        """The response when it is not streamed."""
        calls = [self._call(index) for index in range(len(self.reply.tool_calls))]
        text = None if calls and not self.reply.text else self.reply.text
        message = {"role": "assistant", "content": text, "refusal": None, **({"tool_calls": calls} if calls else {})}
        rest = {"message": message, "logprobs": None, "finish_reason": self.finish_reason()}
        usage = {} if self.reply.usage == "omit" else {"usage": self.usage()}
        choices = [{"index": index, **rest} for index in range(self.choices)]
        return {**self.head("chat.completion"), "choices": choices, **usage}

    def frames(self) -> list[bytes]:
        """The response as the chunks of a stream; usage only when it was asked for, as OpenAI does."""
        deltas = [{"delta": delta, "finish_reason": None} for delta in self._deltas()]
        return self.chunked("chat.completion.chunk", [*deltas, {"delta": {}, "finish_reason": self.finish_reason()}])

    def chunked(self, kind: str, parts: list[dict[str, Any]]) -> list[bytes]:
        """Every part once for each choice, then the usage if it was asked for."""
        asked = bool((self.request.body.get("stream_options") or {}).get("include_usage"))
        head = self.head(kind) | ({"usage": None} if asked else {})
        each = ({"index": index, "logprobs": None, **part} for part in parts for index in range(self.choices))
        frames = [sse({**head, "choices": [choice]}) for choice in each]
        if asked and self.reply.usage != "omit":
            frames.append(sse({**head, "choices": [], "usage": self.usage()}))
        return [*frames, b"data: [DONE]\n\n"]

    def call_id(self, index: int) -> str:
        """The id of one of the tool calls."""
        return self.reply.tool_calls[index].id or f"call_{self.request.number}_{index}"

    def _call(self, index: int) -> dict[str, Any]:
        call = self.reply.tool_calls[index]
        function = {"name": call.name, "arguments": call.arguments_json}
        return {"id": self.call_id(index), "type": "function", "function": function}

    def _deltas(self) -> Iterator[dict[str, Any]]:
        yield {"role": "assistant", "content": None if self.reply.tool_calls else "", "refusal": None}
        yield from ({"content": word} for word in self.words())
        for index, call in enumerate(self.reply.tool_calls):
            opened = self._call(index) | {"function": {"name": call.name, "arguments": ""}}
            yield {"tool_calls": [{"index": index, **opened}]}
            yield {"tool_calls": [{"index": index, "function": {"arguments": call.arguments_json}}]}

    @classmethod
    def error(cls, status: int, message: str) -> Mapping[str, Any]:
        """An error body in this endpoint's words."""
        kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004
        return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


class LoopbackProvider:
    """An HTTP server on 127.0.0.1 with a script of replies and a bill; a context manager.

    A request is billed when its generation begins: a client that goes away, early or in a stream, pays in full.
    """

    wires: ClassVar[Mapping[str, type[ChatWire]]] = {"/v1/chat/completions": ChatWire}
    default_prices: ClassVar[Mapping[str, Mapping[str, str]]] = PRICES

    def __init__(
        self,
        reply: Reply | Callable[[RecordedRequest], Reply] | Sequence[Reply] = Reply(),
        *,
        prices: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Script the server.

        Args:
            reply: One reply for all requests, a function of the request, or replies in order (then 500).
            prices: Unit prices as in `PRICES`, added to the built-in ones.
        """
        self._reply = reply
        self._prices = {**self.default_prices, **(prices or {})}
        self._lock = threading.Lock()
        self._number = 0
        self._server: _Server | None = None
        self.reset()

    def reset(self) -> None:
        """Forget requests and bill, and start the script of replies again."""
        with self._lock:
            self._requests: list[RecordedRequest] = []
            self._bill: list[BillItem] = []
            self._script = iter(self._reply if isinstance(self._reply, Sequence) else ())

    def script(self, reply: Reply | Callable[[RecordedRequest], Reply] | Sequence[Reply]) -> None:
        """Answer the coming requests with other replies."""
        with self._lock:
            self._reply = reply
            self._script = iter(reply if isinstance(reply, Sequence) else ())

    def start(self) -> Self:
        """Listen on a free port."""
        if self._server is None:
            self._server = _Server(self)
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening and drop all connections; requests and bill stay readable."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """The `base_url` an OpenAI client takes.

        Raises:
            RuntimeError: The provider is not started.
        """
        if self._server is None:
            raise RuntimeError("The loopback provider is not running; use it in a with block or call start().")
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests so far, in order of arrival (a copy)."""
        with self._lock:
            return list(self._requests)

    @property
    def bill(self) -> list[BillItem]:
        """All lines of the bill so far (a copy)."""
        with self._lock:
            return list(self._bill)

    @property
    def billed_usd(self) -> Decimal:
        """The exact sum of the bill in USD."""
        return _sum(item.usd for item in self.bill)

    def _next_reply(self, request: RecordedRequest) -> Reply:
        if isinstance(self._reply, Reply):
            return self._reply
        if callable(self._reply):
            return self._reply(request)
        with self._lock:
            reply = next(self._script, None)
        if reply is None:
            raise LookupError(f"Request {request.number} came after the last of the scripted replies.")
        return reply

    def answer(self, path: str, headers: dict[str, str], raw: bytes) -> _Answer:
        """Record a request, bill it and say how to answer."""
        wire_type = self.wires.get(path.partition("?")[0])
        try:
            with self._lock:
                self._number += 1
                request = RecordedRequest(self._number, "POST", path, headers, json.loads(raw), time.monotonic())
                self._requests.append(request)
            if wire_type is None:
                return _failure(ChatWire, 404, f"The loopback provider does not serve {path}.")
            return self._generate(wire_type, request, self._next_reply(request))
        except Exception as error:  # a script's fault must reach the test as an answer, not hang its client
            return _failure(wire_type or ChatWire, 500, f"{type(error).__name__}: {error}")

    def _generate(self, wire_type: type[ChatWire], request: RecordedRequest, reply: Reply) -> _Answer:
        if reply.status >= 400:  # noqa: PLR2004
            return _failure(wire_type, reply.status, f"Simulated error {reply.status}.", reply)
        wire = wire_type(request, reply, self._prices)
        if streamed := bool(request.body.get("stream")):
            pieces = [b"%x\r\n%s\r\n" % (len(frame), frame) for frame in wire.frames()]
            pieces[-1] += b"0\r\n\r\n"
        else:
            pieces = [json.dumps(wire.body() if reply.body is None else reply.body).encode()]
        item = wire.bill()
        with self._lock:
            self._bill.append(item)
        return reply.status, streamed, pieces, reply


def _failure(wire_type: type[ChatWire], status: int, message: str, reply: Reply = Reply()) -> _Answer:
    return status, False, [json.dumps(reply.error or wire_type.error(status, message)).encode()], reply


class _Handler(BaseHTTPRequestHandler):
    """Reads one request, sends one answer; knows HTTP and nothing of models."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.provider.answer(self.path, headers, raw)
        try:
            self._send(*answer)
        except ConnectionError:  # the client went away; it pays all the same
            self.close_connection = True

    def _send(self, status: int, streamed: bool, pieces: list[bytes], reply: Reply) -> None:  # noqa: FBT001
        self.server.pause(reply.delay_s)
        self.send_response(status)
        length = ("transfer-encoding", "chunked") if streamed else ("content-length", str(len(pieces[0])))
        content = ("content-type", "text/event-stream; charset=utf-8" if streamed else "application/json")
        for name, value in (*reply.headers.items(), content, length):
            self.send_header(name, value)
        self.end_headers()
        for index, piece in enumerate(pieces[: reply.cut_after_chunks]):
            self.server.pause(reply.chunk_delay_s if index else 0)
            self.wfile.write(piece)
        self.close_connection |= reply.cut_after_chunks is not None

    def log_message(self, *args: object) -> None:
        """Say nothing: the requests are recorded."""


class _Server(socketserver.ThreadingTCPServer):
    """A thread per connection, and a way to end them all (HTTPServer would ask DNS for this host's name)."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, provider: LoopbackProvider) -> None:
        self.provider = provider
        self._stopping = threading.Event()
        self._connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        super().__init__(("127.0.0.1", 0), _Handler)

    def pause(self, seconds: float) -> None:
        if seconds:
            self._stopping.wait(seconds)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        self._stopping.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # already gone
                connection.shutdown(socket.SHUT_RDWR)
