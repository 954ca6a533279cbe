"""A provider on 127.0.0.1 that speaks OpenAI chat completions and embeddings over real HTTP and keeps its own bill.

Owns the script of replies and the server; what is said and billed is in `wire`. Must not know the budget library: its
bill is the second opinion the demo and the tests compare with, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ai_budget_callbacks.demo.wire import (
    PRICES,
    BillItem,
    ChatWire,
    EmbeddingsWire,
    RecordedRequest,
    Reply,
    ToolCall,
    exact_sum,
    quarter,
    sse,
)

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = [
    "PRICES",
    "BillItem",
    "ChatWire",
    "LoopbackProvider",
    "RecordedRequest",
    "Reply",
    "ToolCall",
    "quarter",
    "sse",
]

_Answer = tuple[int, bool, list[bytes], Reply]  # status, streamed or not, the bytes to send, how to send them
_PLAIN = Reply()


class LoopbackProvider:
    """An HTTP server on 127.0.0.1 with a script of replies and a bill; a context manager.

    A request is billed when its generation begins: a client that goes away, early or in a stream, pays in full.
    """

    wires: ClassVar[Mapping[str, type[ChatWire]]] = {
        "/v1/chat/completions": ChatWire,
        "/v1/embeddings": EmbeddingsWire,
    }
    default_prices: ClassVar[Mapping[str, Mapping[str, str]]] = PRICES

    def __init__(
        self,
        reply: Reply | Callable[[RecordedRequest], Reply] | Sequence[Reply] = _PLAIN,
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

    def price(self, prices: Mapping[str, Mapping[str, str]]) -> None:
        """Bill the coming requests at other unit prices: as in `PRICES`, added to those it has."""
        self._prices = {**self._prices, **prices}

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
        return exact_sum(item.usd for item in self.bill)

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


def _failure(wire_type: type[ChatWire], status: int, message: str, reply: Reply = _PLAIN) -> _Answer:
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


class NewPort(socketserver.TCPServer):
    """A server on a port that no server of this process has had.

    langchain-openai (1.7) keeps one HTTP client for each `base_url` in the process. A port's second server would be
    asked over the connections of its first, which an event loop that is closed cannot even close.
    """

    _had: ClassVar[set[int]] = set()

    def server_bind(self) -> None:
        held = []
        super().server_bind()
        while self.server_address[1] in self._had:
            held.append(self.socket)  # for as long as it is bound the system gives another
            self.socket = socket.socket(self.address_family, self.socket_type)
            self.server_address = (self.server_address[0], 0)
            super().server_bind()
        self._had.add(self.server_address[1])
        for each in held:
            each.close()


class _Server(NewPort, socketserver.ThreadingTCPServer):
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
