"""Plays a recording: the real client sends, vcrpy answers with what was recorded, the handler books.

`plays()` lists every (recording, client, way) that can be played here; a way is single calls or the agent loop that the
recorded answers drive to its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import unquote

import vcr

from tests.recordings.exchange import Exchange, Framework
from tests.support.corpus import cassette, corpus, index

__all__ = ["Play", "Result", "aplay", "few", "key", "names", "play", "plays", "unplayable"]

_TAPES = vcr.VCR(record_mode="none", match_on=["verb", "host", "place"], decode_compressed_response=True)
# google-genai's async client writes methods in small letters, and vcrpy's own matcher minds
_TAPES.register_matcher("verb", lambda one, other: one.method.upper() == other.method.upper())
# clients put a model's colon and slash into the path as they are or encoded
_TAPES.register_matcher("place", lambda one, other: unquote(one.path) == unquote(other.path))


@dataclass(frozen=True)
class Play:
    """One way to play one recording.

    Attributes:
        framework: Whose clients play it.
        file: The recording.
        clients: By call; None where no client here can play it.
        way: `"single"` or `"agent"`.
    """

    framework: Framework
    file: str
    clients: tuple[str | None, ...]
    way: str

    @property
    def client(self) -> str:
        """Names of its clients."""
        return "+".join(dict.fromkeys(name for name in self.clients if name))

    @property
    def id(self) -> str:
        return f"{self.client}-{self.way}-{self.file.removeprefix('recordings/').removesuffix('.yaml')}"

    @property
    def exchanges(self) -> list[Exchange]:
        return _exchanges(self.file)


@dataclass
class Result:
    """What a play did.

    Attributes:
        sent: Requests that the tape answered.
        raised: By call, the name of the exception that reached the caller.
    """

    sent: int = 0
    raised: dict[int, str] = field(default_factory=dict)


_INDEX: Mapping[str, Mapping[str, Any]] = {recording["file"]: recording for recording in index()}


@cache
def _exchanges(file: str) -> list[Exchange]:
    tape = cassette(file)
    return [Exchange(call, tape[call["index"]]["request"]) for call in _INDEX[file]["calls"]]


def key(file: str, number: int) -> str:
    """Name of a call in the list of exceptions."""
    return f"{file.removeprefix('recordings/').removesuffix('.yaml')}#{number}"


def _speakers(framework: Framework, file: str) -> list[tuple[list[str], str]]:
    found = []
    for exchange in _exchanges(file):
        names, reason = framework.candidates(exchange)
        here = [name for name in names if framework.clients[name].installed]
        missing = "; ".join(_missing(framework, name) for name in names)
        found.append((here, reason or missing))
    return found


def _missing(framework: Framework, name: str) -> str:
    client = framework.clients[name]
    when = f" (it comes {client.conflict})" if client.conflict else ""
    return f"{client.package.replace('_', '-')} is not installed{when}"


def plays(framework: Framework) -> list[Play]:
    """Everything that can be played with what is installed."""
    found = []
    for file, recording in _INDEX.items():
        speakers = [names for names, _ in _speakers(framework, file)]
        for turn in range(max(map(len, speakers))):
            clients = tuple(names[turn] if len(names) > turn else None for names in speakers)
            found.append(Play(framework, file, clients, "single"))
            if "agent_loop" in recording["features"] and _one_agent(recording, clients):
                client = framework.clients[str(clients[0])]
                found += [Play(framework, file, clients, "agent")] if client.agents(_exchanges(file)[0]) else []
    return found


def few(found: list[Play]) -> list[Play]:
    """For each client and way the first two plays with and without streams: enough for the async path."""
    kept: dict[tuple[str, str, bool], list[Play]] = {}
    for item in found:
        streams = any(exchange.call["streaming"] for exchange in item.exchanges)
        if not streams and any(name and item.framework.clients[name].sync_only for name in item.clients):
            continue
        kept.setdefault((item.client, item.way, streams), []).append(item)
    return [item for group in kept.values() for item in group[:2]]


def names(framework: Framework) -> set[tuple[str, str]]:
    """(client, call) of everything that could be played with every client installed."""
    return {
        (client, key(file, number))
        for file in _INDEX
        for number, exchange in enumerate(_exchanges(file))
        for client in framework.candidates(exchange)[0]
    }


def _one_agent(recording: Mapping[str, Any], clients: tuple[str | None, ...]) -> bool:
    """Whether one model object can have made every call."""
    return len(set(clients)) == 1 and len({call["streaming"] for call in recording["calls"]}) == 1


def unplayable(framework: Framework) -> Iterator[tuple[str, str]]:
    """Calls that no client here can play, each with the reason."""
    for file in _INDEX:
        for number, (names, reason) in enumerate(_speakers(framework, file)):
            if not names:
                yield key(file, number), reason


def _tape(item: Play) -> Any:
    return _TAPES.use_cassette(str(corpus() / item.file))


def play(item: Play, handler: Any) -> Result:
    """Play it under a handler."""
    result = Result()
    framework = item.framework
    with _tape(item) as tape:
        if item.way == "agent":
            framework.agent(framework.clients[str(item.clients[0])], item.exchanges, handler)
        for number, exchange, client in _singles(item):
            try:
                framework.send(framework.clients[client], exchange, handler, number)
            except Exception as error:
                result.raised[number] = type(error).__name__
        result.sent = tape.play_count
    return result


async def aplay(item: Play, handler: Any) -> Result:
    """The same on the async path."""
    result = Result()
    framework = item.framework
    with _tape(item) as tape:
        if item.way == "agent":
            await framework.aagent(framework.clients[str(item.clients[0])], item.exchanges, handler)
        for number, exchange, client in _singles(item):
            try:
                await framework.asend(framework.clients[client], exchange, handler, number)
            except Exception as error:
                result.raised[number] = type(error).__name__
        result.sent = tape.play_count
    return result


def _singles(item: Play) -> list[tuple[int, Exchange, str]]:
    if item.way != "single":
        return []
    numbered = enumerate(zip(item.exchanges, item.clients, strict=True))
    return [(number, exchange, client) for number, (exchange, client) in numbered if client]
