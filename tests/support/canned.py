"""A server on 127.0.0.1 that answers every request with one canned answer, for clients whose wire the far end lacks."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from ai_budget_callbacks.demo.loopback import NewPort

__all__ = ["SSE", "Canned", "Server", "chat_body", "chunk", "events", "streamed"]

SSE = "text/event-stream"


def events(*chunks: Any, done: bool = True) -> str:
    """Server-sent events of JSON chunks."""
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"] if done else lines)


@dataclass(frozen=True)
class Canned:
    """An answer.

    Attributes:
        body: JSON, or text that is sent as it is.
        status: HTTP status.
        kind: Content type.
        headers: More headers.
        delay_s: Wait before anything is sent.
        promised: Bytes that the length promises beyond what is sent: the connection then breaks.
    """

    body: Any = None
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0
    promised: int = 0

    @property
    def data(self) -> bytes:
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


class Server:
    """Serves one answer, whatever is asked; a context manager."""

    def __init__(self, answer: Canned) -> None:
        self.paths: list[str] = []
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                paths.append(self.path)
                time.sleep(answer.delay_s)
                self.send_response(answer.status)
                headers = {"content-type": answer.kind, "content-length": str(len(answer.data) + answer.promised)}
                for name, value in (headers | answer.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.data)
                self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # the client went away
                    pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(NewPort, ThreadingHTTPServer):
    """A thread for each connection."""


def chat_body(usage: Any, model: str = "m", text: str = "Four.") -> dict[str, Any]:
    """An answer of OpenAI's shape."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "system_fingerprint": None,
        "choices": [choice],
        "usage": usage,
    }


def chunk(
    model: str = "m", text: str = "", usage: Any = None, finish: str | None = None, **more: Any
) -> dict[str, Any]:
    """A chunk of it."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}
    found = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
    return found | ({"usage": usage} if usage else {}) | more


def streamed(usage: Any, model: str = "m") -> Canned:
    """Its stream."""
    return Canned(events(chunk(model, "Four."), chunk(model, "", usage, "stop")), kind=SSE)
