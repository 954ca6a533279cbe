"""Plays a recording: the real client sends, vcrpy answers with what was recorded, the handler books.

`plays()` lists every (recording, client, way) that can be played here; a way is single calls or the agent loop that the
recorded answers drive to its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import vcr
from langchain.agents import create_agent
from langchain_core.tools import StructuredTool

from tests.recordings.clients import CLIENTS, Exchange, candidates, request_body
from tests.support.corpus import cassette, corpus, index

__all__ = ["Play", "Result", "aplay", "key", "names", "play", "plays", "unplayable"]

ASK = "hi"  # bodies never match, and usage comes from the answer
_TAPES = vcr.VCR(record_mode="none", match_on=["method", "host", "path"], decode_compressed_response=True)


@dataclass(frozen=True)
class Play:
    """One way to play one recording.

    Attributes:
        file: The recording.
        clients: By call; None where no client here can play it.
        way: `"single"` or `"agent"`.
    """

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


def _speakers(file: str) -> list[tuple[list[str], str]]:
    found = []
    for exchange in _exchanges(file):
        names, reason = candidates(exchange)
        here = [name for name in names if CLIENTS[name].installed]
        missing = "; ".join(_missing(name) for name in names)
        found.append((here, reason or missing))
    return found


def _missing(name: str) -> str:
    client = CLIENTS[name]
    pins = f" ({client.conflict}, which our pins exclude)" if client.conflict else ""
    return f"{client.package.replace('_', '-')} is not installed{pins}"


def plays() -> list[Play]:
    """Everything that can be played with what is installed."""
    found = []
    for file, recording in _INDEX.items():
        speakers = [names for names, _ in _speakers(file)]
        for turn in range(max(map(len, speakers))):
            clients = tuple(names[turn] if len(names) > turn else None for names in speakers)
            found.append(Play(file, clients, "single"))
            if "agent_loop" in recording["features"] and _one_agent(recording, clients):
                found.append(Play(file, clients, "agent"))
    return found


def names() -> set[tuple[str, str]]:
    """(client, call) of everything that could be played with every client installed."""
    return {
        (client, key(file, number))
        for file in _INDEX
        for number, exchange in enumerate(_exchanges(file))
        for client in candidates(exchange)[0]
    }


def _one_agent(recording: Mapping[str, Any], clients: tuple[str | None, ...]) -> bool:
    """Whether one model object can have made every call."""
    return len(set(clients)) == 1 and len({call["streaming"] for call in recording["calls"]}) == 1


def unplayable() -> Iterator[tuple[str, str]]:
    """Calls that no client here can play, each with the reason."""
    for file in _INDEX:
        for number, (names, reason) in enumerate(_speakers(file)):
            if not names:
                yield key(file, number), reason


def _tape(play: Play) -> Any:
    return _TAPES.use_cassette(str(corpus() / play.file))


def play(play: Play, handler: Any) -> Result:
    """Play it; the handler stands in `config`."""
    result = Result()
    with _tape(play) as tape:
        if play.way == "agent":
            _agent(play).invoke({"messages": [("user", ASK)]}, _config(handler, "agent"))
        for number, exchange, client in _singles(play):
            try:
                model = CLIENTS[client].make(exchange)
                if exchange.call["streaming"]:
                    for _ in model.stream(ASK, _config(handler, number)):
                        pass
                else:
                    model.invoke(ASK, _config(handler, number))
            except Exception as error:
                result.raised[number] = type(error).__name__
        result.sent = tape.play_count
    return result


async def aplay(play: Play, handler: Any) -> Result:
    """The same on the async path."""
    result = Result()
    with _tape(play) as tape:
        if play.way == "agent":
            await _agent(play).ainvoke({"messages": [("user", ASK)]}, _config(handler, "agent"))
        for number, exchange, client in _singles(play):
            try:
                model = CLIENTS[client].make(exchange)
                if exchange.call["streaming"]:
                    async for _ in model.astream(ASK, _config(handler, number)):
                        pass
                else:
                    await model.ainvoke(ASK, _config(handler, number))
            except Exception as error:
                result.raised[number] = type(error).__name__
        result.sent = tape.play_count
    return result


def _singles(play: Play) -> list[tuple[int, Exchange, str]]:
    if play.way != "single":
        return []
    numbered = enumerate(zip(play.exchanges, play.clients, strict=True))
    return [(number, exchange, client) for number, (exchange, client) in numbered if client]


def _config(handler: Any, number: Any) -> dict[str, Any]:
    return {"callbacks": [handler], "metadata": {"recorded": str(number)}}


def _agent(play: Play) -> Any:
    """An agent with the recorded tools; the recorded answers drive it to its end."""
    first = play.exchanges[0]
    more = {"streaming": True} if first.call["streaming"] else {}
    model = CLIENTS[str(play.clients[0])].make(first, **more)
    schemas = {name: schema for exchange in play.exchanges for name, schema in _tools(request_body(exchange))}
    return create_agent(model, [_tool(name, schema) for name, schema in schemas.items()])


def _tools(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and JSON schema of each function in a request, whichever family's."""
    for tool in body.get("tools") or ():
        for entry in tool.get("functionDeclarations") or [tool.get("function") or tool]:
            if isinstance(entry, dict) and entry.get("name"):
                names = ("parameters", "input_schema", "parametersJsonSchema", "parameters_json_schema")
                schema = next((entry[name] for name in names if entry.get(name)), {"type": "object"})
                yield entry["name"], schema
    for entry in _mapping(body.get("toolConfig")).get("tools") or ():
        spec = entry.get("toolSpec")
        if spec:
            yield spec["name"], spec["inputSchema"]["json"]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tool(name: str, schema: dict[str, Any]) -> StructuredTool:
    lowered = _lowered(schema)
    return StructuredTool.from_function(
        func=lambda **_: "done", coroutine=_done, name=name, description=name, args_schema={"properties": {}} | lowered
    )


async def _done(**_: Any) -> str:
    return "done"


def _lowered(schema: Any) -> Any:
    """Gemini writes types in capitals."""
    if isinstance(schema, dict):
        return {
            name: value.lower() if name == "type" and isinstance(value, str) else _lowered(value)
            for name, value in schema.items()
        }
    return [_lowered(item) for item in schema] if isinstance(schema, list) else schema
