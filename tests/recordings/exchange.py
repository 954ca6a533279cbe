"""A recorded call, and what plays it: a framework's clients, and how a model of them is made to send."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["ASK", "Client", "Exchange", "Framework", "functions", "request_body"]

ASK = "hi"  # bodies never match, and usage comes from the answer


@dataclass(frozen=True)
class Exchange:
    """One recorded call: what the index says of it, and its request.

    Attributes:
        call: The index's object.
        request: The recorded request.
    """

    call: Mapping[str, Any]
    request: Mapping[str, Any]

    @property
    def url(self) -> Any:
        return urlsplit(self.request["uri"])

    @property
    def root(self) -> str:
        return f"{self.url.scheme}://{self.url.netloc}"

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.url.query).items()}

    def base(self, ending: str) -> str:
        """The address without what the client appends."""
        return self.root + self.url.path.removesuffix(ending)

    @property
    def model(self) -> str:
        return self.call["request_model"] or self.call["response_model"] or "unnamed"


@dataclass(frozen=True)
class Client:
    """A framework's client.

    Attributes:
        package: The distribution's import name.
        make: A model object for an exchange, and options of its own.
        conflict: Why it is not in the test group.
        agents: Whether an agent takes its model for an exchange.
        sync_only: Its plain answers have no async path.
    """

    package: str
    make: Callable[..., Any]
    conflict: str = ""
    agents: Callable[[Exchange], bool] = lambda _: True
    sync_only: bool = False

    @property
    def installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.package) is not None
        except ModuleNotFoundError:  # its parent is not there either
            return False


@dataclass(frozen=True)
class Framework:
    """What is told of a framework to play recordings through it.

    Attributes:
        name: As in entries.
        clients: By name; no two frameworks have the same names.
        candidates: Names of clients that speak the recorded API, and why there is none.
        handler: A handler from budgets and a ledger file.
        send, asend: Play one call: (client, exchange, handler, its number).
        agent, aagent: Play the agent loop: (client, exchanges, handler).
    """

    name: str
    clients: Mapping[str, Client]
    candidates: Callable[[Exchange], tuple[list[str], str]]
    handler: Callable[..., Any]
    send: Callable[[Client, Exchange, Any, int], None]
    asend: Callable[[Client, Exchange, Any, int], Awaitable[None]]
    agent: Callable[[Client, list[Exchange], Any], None]
    aagent: Callable[[Client, list[Exchange], Any], Awaitable[None]]


def request_body(exchange: Exchange) -> dict[str, Any]:
    """The recorded request's JSON; empty where it is none."""
    body = exchange.request.get("body")
    try:
        found = json.loads(body) if body else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def functions(exchanges: list[Exchange]) -> dict[str, dict[str, Any]]:
    """JSON schema by name of each function that the requests offer, whichever family's."""
    return {name: schema for exchange in exchanges for name, schema in _functions(request_body(exchange))}


def _functions(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
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
