"""How answers are recorded and played (vcrpy): no key, no cookie, no id, only what prices and readers look at."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import vcr

__all__ = ["CASSETTES", "CONFIG", "NOTE", "is_loopback", "play", "recorder"]

CASSETTES = Path(__file__).parent / "cassettes"
NOTE = "# Recorded from this project's loopback provider (python -m tests.live.loopback), not from a real one.\n"

_KEPT = ("content-type", "retry-after")
_IDS = re.compile(
    rb"\b(chatcmpl|resp|msg|req|toolu|call|fc|rs|fp|org|proj|user)([-_])((?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{6,})"
)
_NAMED = re.compile(rb'("(?:responseId|thoughtSignature|request_id|system_fingerprint)"\s*:\s*")([^"]{6,})"')


def _digest(found: bytes) -> bytes:
    return hashlib.sha256(found).hexdigest()[:6].encode()  # ids that were the same stay the same


def _anonymous(body: Any) -> Any:
    if not body:
        return body
    raw = body.encode() if isinstance(body, str) else bytes(body)
    raw = _IDS.sub(lambda found: found[1] + found[2] + _digest(found[3]), raw)
    return _NAMED.sub(lambda found: found[1] + _digest(found[2]) + b'"', raw)


def _request(request: Any) -> Any:
    """A copy without who asked: vcrpy sends the original."""
    parts = urlsplit(request.uri)  # without the query, where Google's clients may put the key, and without the port
    request.uri = urlunsplit((parts.scheme, parts.hostname or "", parts.path, "", ""))
    request.headers = {name: value for name, value in request.headers.items() if name.lower() in _KEPT}
    request.body = _anonymous(request.body)
    return request


def _response(response: Any) -> Any:
    response["headers"] = {name: value for name, value in response["headers"].items() if name.lower() in _KEPT}
    response["body"]["string"] = _anonymous(response["body"]["string"])
    return response


CONFIG = {
    "match_on": ["method", "path"],  # a client with another base_url, and the loopback provider's port
    "decode_compressed_response": True,
    "before_record_request": _request,
    "before_record_response": _response,
}


def play(path: Path) -> Any:
    """Play a cassette; a request that is not on it fails, and none reaches the network."""
    return vcr.VCR(record_mode="none", **CONFIG).use_cassette(str(path))


def recorder(path: Path) -> Any:
    """Record what is asked into a new cassette."""
    path.unlink(missing_ok=True)
    return vcr.VCR(record_mode="all", **CONFIG).use_cassette(str(path))


def is_loopback(path: Path) -> bool:
    """Whether a cassette says that no real provider answered."""
    return path.read_text(encoding="utf-8").startswith(NOTE)
