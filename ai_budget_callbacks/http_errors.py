"""What an exception of a provider's client says about its request: an HTTP status, or that nothing was sent.

Facts: facts/langchain.md 3.5 and 9. "Never sent" and "reset after sending" differ only in a cause levels down.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["HTTP_ERROR", "answer_body", "http_status", "never_sent"]

HTTP_ERROR = 400
"""From this status on an answer is an error, and nothing was generated."""

_CLIENTS = frozenset({"httpx", "httpcore", "httpx2", "httpcore2", "requests", "urllib3", "aiohttp", "botocore"})
# the request never left this machine
_NEVER_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "UnsupportedProtocol",
        "InvalidURL",
        "LocalProtocolError",
        "NewConnectionError",
        "ConnectTimeoutError",
        "ClientConnectorError",
        "EndpointConnectionError",
        "NoCredentialsError",
        "ParamValidationError",
    }
)
_OLLAMA = "Failed to connect to Ollama"  # ollama 0.6 hides the error of its transport behind it
_DEPTH = 8


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes. Never its context: that may be an unrelated request of the user's own code."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and len(found) < _DEPTH:
        found.append(current)
        current = current.__cause__
    return found


def http_status(error: BaseException) -> int | None:
    """HTTP status of the *response* an error or one of its causes carries, or None."""
    for item in _chain(error):
        for holder in (getattr(item, "response", None), item):
            status = getattr(holder, "status_code", None)
            if status is None and isinstance(holder, Mapping):  # botocore's ClientError
                metadata: Any = holder.get("ResponseMetadata")
                status = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
            if status is None and _of_aiohttp(holder):  # google-genai's async client
                status = getattr(holder, "status", None)
            if type(status) is int:
                return status
    return None


def answer_body(error: BaseException) -> Mapping[str, Any] | None:
    """The answer that a client failed to read, where it hangs on its exception as a JSON object."""
    for item in _chain(error):
        body = getattr(item, "body", None)
        if isinstance(body, str):
            try:
                body = json.loads(body)
            except ValueError:
                continue
        if isinstance(body, Mapping):
            return body
    return None


def _of_aiohttp(holder: Any) -> bool:
    return any(base.__module__.partition(".")[0] == "aiohttp" for base in type(holder).__mro__)


def never_sent(error: BaseException) -> bool:
    """Whether an error or one of its causes says that the request never left this machine."""
    return any(
        (type(item).__name__ in _NEVER_SENT and type(item).__module__.partition(".")[0] in _CLIENTS)
        or (type(item) is ConnectionError and str(item).startswith(_OLLAMA))
        for item in _chain(error)
    )
