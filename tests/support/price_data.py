"""The installed price data in the JSON form that genai-prices publishes, digit for digit; a server that sends it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import threading
from datetime import date, time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

from genai_prices.data import providers
from genai_prices.types import ModelPrice

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["breaking_off", "published", "sending"]


def published() -> bytes:
    """The whole list, as the library's update address has it."""
    text = json.dumps([_plain(provider) for provider in providers])
    return re.sub(r'"@([0-9.]+)@"', r"\1", text).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"@{value:f}@"  # a number in the file: json knows floats alone
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, ModelPrice):
        return {name: _plain(item) for name, item in vars(value).items() if item is not None}
    if dataclasses.is_dataclass(value):
        shown = [field.name for field in dataclasses.fields(value) if not field.name.startswith("_")]
        found = {name.rstrip("_"): getattr(value, name) for name in shown if name != "extractors"}
        return {name: _plain(item) for name, item in found.items() if item is not None}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@contextlib.contextmanager
def sending(body: bytes, status: int = 200) -> Iterator[str]:
    """A server on 127.0.0.1 that answers every request with this; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/data.json"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def breaking_off(sent: bytes) -> Iterator[str]:
    """A server on 127.0.0.1 that sends these bytes and no more; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(sent)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/data.json"
