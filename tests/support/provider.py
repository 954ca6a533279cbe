"""The far end of every test: the demo's loopback provider, and the other endpoints LangChain talks to.

Adds OpenAI Responses and completions, and Anthropic messages. Like its base it keeps its own bill
from its own prices and imports nothing of the budget library but the base itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ai_budget_callbacks.demo.loopback import PRICES, BillItem, ChatWire, LoopbackProvider, Reply, sse

__all__ = ["ClaudeReply", "FarEnd"]

FAR_PRICES = {
    **PRICES,
    "gpt-3.5-turbo-instruct": {"input": "1.50", "output": "2.00"},
    "claude-sonnet-4-5": {
        "input": "3", "write_5m": "3.75", "write_1h": "6", "cached": "0.30", "output": "15", "web_search": "10000",
    },
    "claude-sonnet-4-0": {
        "input": "3", "write_5m": "3.75", "write_1h": "6", "cached": "0.30", "output": "15", "web_search": "10000",
    },
    "claude-3-5-sonnet-20241022": {
        "input": "3", "write_5m": "3.75", "write_1h": "6", "cached": "0.30", "output": "15", "web_search": "10000",
    },
    "claude-haiku-4-5": {
        "input": "1", "write_5m": "1.25", "write_1h": "2", "cached": "0.10", "output": "5", "web_search": "10000",
    },
}  # fmt: skip
"""USD per million, web searches too (10 USD per 1000)."""


@dataclass(frozen=True, kw_only=True)
class ClaudeReply(Reply):
    """A reply with what only Anthropic bills. Here `input_tokens` leaves out cached and written ones, as its wire does.

    Attributes:
        write_5m_tokens: Input tokens written to the 5-minute cache.
        write_1h_tokens: Input tokens written to the 1-hour cache.
        web_searches: Server-side web searches.
        delta_output_only: `message_delta` reports output tokens alone, as the older API did.
    """

    service_tier: str | None = "standard"
    write_5m_tokens: int = 0
    write_1h_tokens: int = 0
    web_searches: int = 0
    delta_output_only: bool = False


class ResponsesWire(ChatWire):
    """OpenAI Responses: `finish_reason` "length" or "content_filter" is incomplete, "failed" is failed (HTTP 200)."""

    input_keys = ("input", "instructions", "tools")

    def __init__(self, *args):
        super().__init__(*args)
        self.id = f"resp_{self.request.number}"

    def true_usage(self):
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": self.reply.cached_tokens},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reply.reasoning_tokens},
            "total_tokens": self.input_tokens + self.output_tokens,
        }

    def status(self):
        known = {"length": "incomplete", "content_filter": "incomplete", "failed": "failed"}
        return known.get(self.reply.finish_reason, "completed")

    def items(self):
        number = self.request.number
        if self.reply.text or not self.reply.tool_calls:
            part = {"type": "output_text", "text": self.reply.text, "annotations": [], "logprobs": []}
            item = {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed"}
            yield {**item, "content": [part]}
        for index, call in enumerate(self.reply.tool_calls):
            item = {"id": f"fc_{number}_{index}", "type": "function_call", "status": "completed"}
            yield {**item, "call_id": self.call_id(index), "name": call.name, "arguments": call.arguments_json}

    def response(self, status, output, usage):
        whys = {"length": "max_output_tokens", "content_filter": "content_filter"}
        why = {"reason": whys[self.reply.finish_reason]} if status == "incomplete" else None
        error = {"code": "server_error", "message": "Simulated failure."} if status == "failed" else None
        tier = {} if self.reply.service_tier is None else {"service_tier": self.reply.service_tier}
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "model": self.model,
            "output": output, "error": self.reply.error or error, "incomplete_details": why, "instructions": None,
            "metadata": {}, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "temperature": 1.0,
            "top_p": 1.0, **tier, **usage,
        }  # fmt: skip

    def body(self):
        usage = {} if self.reply.usage == "omit" else {"usage": self.usage()}
        return self.response(self.status(), list(self.items()), usage)

    def frames(self):
        return [
            sse({"type": kind, "sequence_number": number, **data}, kind)
            for number, (kind, data) in enumerate(self._events())
        ]

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        opened = {"response": self.response("in_progress", [], {"usage": None})}
        yield "response.created", opened
        yield "response.in_progress", opened
        for index, item in enumerate(self.items()):
            place = {"output_index": index}
            empty = {"content": []} if item["type"] == "message" else {"arguments": ""}
            yield "response.output_item.added", {**place, "item": {**item, **empty, "status": "in_progress"}}
            inner = self._text_events if item["type"] == "message" else self._call_events
            yield from inner(item, {**place, "item_id": item["id"]})
            yield "response.output_item.done", {**place, "item": item}
        yield f"response.{self.status()}", {"response": self.body()}

    def _text_events(self, item, place):
        place = {**place, "content_index": 0}
        part = item["content"][0]
        yield "response.content_part.added", {**place, "part": {**part, "text": ""}}
        for word in self.words():
            yield "response.output_text.delta", {**place, "delta": word, "logprobs": []}
        yield "response.output_text.done", {**place, "text": part["text"], "logprobs": []}
        yield "response.content_part.done", {**place, "part": part}

    def _call_events(self, item, place):
        yield "response.function_call_arguments.delta", {**place, "delta": item["arguments"]}
        done = {"arguments": item["arguments"], "name": item["name"]}
        yield "response.function_call_arguments.done", {**place, **done}


class CompletionsWire(ChatWire):
    """OpenAI completions: several prompts and `n` give several choices and one usage."""

    input_keys = ("prompt",)

    def __init__(self, *args):
        super().__init__(*args)
        self.id = f"cmpl-{self.request.number}"

    def count_choices(self):
        prompt = self.request.body.get("prompt")
        many = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], (str, list))
        return super().count_choices() * (len(prompt) if many else 1)

    def body(self):
        part = {"text": self.reply.text, "logprobs": None, "finish_reason": self.finish_reason()}
        usage = {} if self.reply.usage == "omit" else {"usage": self.usage()}
        choices = [{"index": index, **part} for index in range(self.choices)]
        return {**self.head("text_completion"), "choices": choices, **usage}

    def frames(self):
        parts = [{"text": word, "finish_reason": None} for word in self.words()]
        return self.chunked("text_completion", [*parts, {"text": "", "finish_reason": self.finish_reason()}])


class MessagesWire(ChatWire):
    """Anthropic messages."""

    input_keys = ("system", "messages", "tools")

    def __init__(self, request, reply, prices):
        super().__init__(request, reply, prices)
        self.id = f"msg_{request.number}"
        claude = reply if isinstance(reply, ClaudeReply) else ClaudeReply()
        self.write_5m, self.write_1h = claude.write_5m_tokens, claude.write_1h_tokens
        self.web_searches, self.delta_output_only = claude.web_searches, claude.delta_output_only

    def count_choices(self):
        return 1

    def call_id(self, index):
        return self.reply.tool_calls[index].id or f"toolu_{self.request.number}_{index}"

    def finish_reason(self):
        why = super().finish_reason()
        return {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}.get(why, why)

    def bill(self):
        cached = self.reply.cached_tokens
        usd = self.usd(
            input=self.input_tokens,
            cached=cached,
            write_5m=self.write_5m,
            write_1h=self.write_1h,
            output=self.output_tokens,
            web_search=self.web_searches,
        )
        total = self.input_tokens + cached + self.write_5m + self.write_1h
        return BillItem(self.model, total, cached, self.output_tokens, usd)

    def counts(self):
        """The cumulative counts, as `message_delta` reports them."""
        thinking = {"output_tokens_details": {"thinking_tokens": self.reply.reasoning_tokens}}
        searches = {"server_tool_use": {"web_search_requests": self.web_searches, "web_fetch_requests": 0}}
        return {
            "input_tokens": self.input_tokens,
            "cache_creation_input_tokens": self.write_5m + self.write_1h,
            "cache_read_input_tokens": self.reply.cached_tokens,
            "output_tokens": self.output_tokens,
            **(thinking if self.reply.reasoning_tokens else {}),
            **(searches if self.web_searches else {}),
        }

    def true_usage(self):
        writes = {"ephemeral_5m_input_tokens": self.write_5m, "ephemeral_1h_input_tokens": self.write_1h}
        tier = {"default": "standard", "auto": "standard"}.get(self.reply.service_tier, self.reply.service_tier)
        return {**self.counts(), "cache_creation": writes, **({} if tier is None else {"service_tier": tier})}

    def reported(self, usage):
        """`usage` as the reply wants it told, as keyword of the object that carries it."""
        if self.reply.usage == "omit":
            return {}
        return {"usage": usage if self.reply.usage == "auto" else self.reply.usage}

    def blocks(self):
        if self.reply.text:
            yield {"type": "text", "text": self.reply.text}
        for index, call in enumerate(self.reply.tool_calls):
            arguments = call.arguments if isinstance(call.arguments, Mapping) else {"raw": call.arguments}
            yield {"type": "tool_use", "id": self.call_id(index), "name": call.name, "input": dict(arguments)}

    def message(self, content, stop_reason, usage):
        head = {"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content}
        return {**head, "stop_reason": stop_reason, "stop_sequence": None, **self.reported(usage)}

    def body(self):
        return self.message(list(self.blocks()), self.finish_reason(), self.true_usage())

    def frames(self):
        return [sse({"type": kind, **data}, kind) for kind, data in self._events()]

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        first = {**self.true_usage(), "output_tokens": 1}
        first.pop("output_tokens_details", None)
        first.pop("server_tool_use", None)
        yield "message_start", {"message": self.message([], None, first)}
        yield "ping", {}
        for index, block in enumerate(self.blocks()):
            text = block["type"] == "text"
            empty = {"text": ""} if text else {"input": {}}
            yield "content_block_start", {"index": index, "content_block": {**block, **empty}}
            for delta in self._text_deltas() if text else self._input_deltas(index - bool(self.reply.text)):
                yield "content_block_delta", {"index": index, "delta": delta}
            yield "content_block_stop", {"index": index}
        last = {"output_tokens": self.output_tokens} if self.delta_output_only else self.counts()
        end = {"stop_reason": self.finish_reason(), "stop_sequence": None}
        yield "message_delta", {"delta": end, **self.reported(last)}
        yield "message_stop", {}

    def _text_deltas(self):
        return ({"type": "text_delta", "text": word} for word in self.words())

    def _input_deltas(self, index):
        arguments = self.reply.tool_calls[index].arguments_json
        middle = len(arguments) // 2
        pieces = "", arguments[:middle], arguments[middle:]
        return ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)

    @classmethod
    def error(cls, status, message):
        kinds = {
            401: "authentication_error", 403: "permission_error", 404: "not_found_error",
            413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error",
        }  # fmt: skip
        kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_loopback"}


class FarEnd(LoopbackProvider):
    """The loopback provider with every endpoint the test-suite uses; `Reply` as in the base, or `ClaudeReply`."""

    wires = {
        **LoopbackProvider.wires,
        "/v1/responses": ResponsesWire,
        "/v1/completions": CompletionsWire,
        "/v1/messages": MessagesWire,
    }
    default_prices = FAR_PRICES

    @property
    def anthropic_url(self):
        """The `base_url` an Anthropic client takes."""
        return self.base_url.removesuffix("/v1")
