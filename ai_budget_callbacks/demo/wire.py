"""What the loopback provider says on the wire, and what it bills for it: OpenAI chat completions and embeddings.

Owns the wire formats and its own unit prices. Must not know the budget library: its bill is the second opinion the demo
and the tests compare with, so it imports the standard library only.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, ClassVar, Literal

__all__ = [
    "PRICES",
    "BillItem",
    "ChatWire",
    "EmbeddingsWire",
    "RecordedRequest",
    "Reply",
    "ToolCall",
    "exact_sum",
    "quarter",
    "sse",
]

PRICES: dict[str, dict[str, str]] = {
    "gpt-4o-mini": {"input": "0.15", "cached": "0.075", "output": "0.60"},
    "gpt-4o": {"input": "2.50", "cached": "1.25", "output": "10"},
    "gpt-5": {"input": "1.25", "cached": "0.125", "output": "10", "priority": "2", "flex": "0.5"},
    "gpt-4.1": {"input": "2", "cached": "0.50", "output": "8"},
    "gpt-4.1-mini": {"input": "0.40", "cached": "0.10", "output": "1.60"},
    "gpt-4.1-nano": {"input": "0.10", "cached": "0.025", "output": "0.40"},
    "text-embedding-3-small": {"input": "0.02"},
    "text-embedding-3-large": {"input": "0.13"},
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


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum."""
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
            raise LookupError(f"The loopback provider has no price for model {self.model!r}; give it one: prices=.")
        if min(tokens.values()) < 0:
            raise ValueError(f"The reply's token counts do not add up: {tokens}.")
        tier = None if self.reply.service_tier in _PLAIN_TIERS else self.reply.service_tier
        counted = {name: count for name, count in tokens.items() if count}
        if missing := [name for name in (*counted, tier) if name is not None and name not in price]:
            raise LookupError(f"The loopback provider has no price {missing} for model {self.model!r}.")
        parts = (_EXACT.multiply(Decimal(price[name]), Decimal(count)) for name, count in counted.items())
        return _EXACT.scaleb(_EXACT.multiply(exact_sum(parts), Decimal(price[tier] if tier else 1)), -6)

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


class EmbeddingsWire(ChatWire):
    """One exchange as OpenAI embeddings: a short vector for each input, always the same; only input is billed."""

    input_keys = ("input",)

    def count_output(self) -> int:
        """None."""
        return 0

    def bill(self) -> BillItem:
        """Its input tokens, whatever output a reply for all endpoints names."""
        return BillItem(self.model, self.input_tokens, 0, 0, self.usd(input=self.input_tokens))

    def true_usage(self) -> dict[str, Any]:
        """The usage object that says what is billed."""
        return {"prompt_tokens": self.input_tokens, "total_tokens": self.input_tokens}

    def body(self) -> dict[str, Any]:
        """The vectors; all of them at once."""
        value = self.request.body.get("input")
        many = isinstance(value, list) and bool(value) and isinstance(value[0], (str, list))
        rows = enumerate(value if many else [value])  # type: ignore[arg-type]  # many says that it is a list
        data = [{"object": "embedding", "index": index, "embedding": self._vector(text)} for index, text in rows]
        usage = {} if self.reply.usage == "omit" else {"usage": self.usage()}
        return {"object": "list", "data": data, "model": self.model, **usage}

    def frames(self) -> list[bytes]:
        """There are none.

        Raises:
            ValueError: Always.
        """
        raise ValueError("Embeddings are not streamed.")

    def _vector(self, value: Any) -> list[float] | str:
        size = int(self.request.body.get("dimensions") or 8)
        floats = [((quarter([value]) + position) % 7 - 3) / 4 for position in range(size)]
        if self.request.body.get("encoding_format") != "base64":
            return floats
        return base64.b64encode(struct.pack(f"<{size}f", *floats)).decode()
