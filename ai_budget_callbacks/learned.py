"""What earlier answers taught about a model: how long they get, and how many bytes make a token.

Lives in the process, is loaded from the ledger by one indexed query for each model, and refreshed now and then.
Staleness changes the size of a hold, never the check.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from ai_budget_callbacks.locks import ForkSafeLock
from ai_budget_callbacks.pricing.estimate import (
    ENOUGH_SAMPLES,
    FRAMING_PER_MESSAGE,
    TOOL_BYTES_PER_TOKEN,
    Learned,
)

if TYPE_CHECKING:
    from ai_budget_callbacks.ledger import Ledger
    from ai_budget_callbacks.usage import Call, Usage

__all__ = ["Samples"]

_KEEP = 64
_REFRESH_S = 300.0
_NEVER = float("-inf")
_MODELS = 1_000
_MIN_TEXT_BYTES = 256  # shorter prompts are mostly framing and teach nothing about the text


class Samples:
    """Latest outputs and byte ratios by provider and model, and by node within them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = ForkSafeLock()
        self._loaded: dict[tuple[str, str], float] = {}
        self._outputs: dict[tuple[str, str, str | None], deque[int]] = {}
        self._ratio: dict[tuple[str, str], tuple[int, int]] = {}

    def learned(self, call: Call) -> Learned:
        """What is known about calls like this one: of its node if there is enough, else of its model."""
        model = (call.provider, call.model)
        if time.monotonic() - self._loaded.get(model, _NEVER) >= _REFRESH_S:
            self._load(model)
        with self._lock:
            outputs = self._outputs.get((*model, call.who.node), ())
            if len(outputs) < ENOUGH_SAMPLES:
                outputs = self._outputs.get((*model, None), outputs)
            text_bytes, text_tokens = self._ratio.get(model, (0, 0))
            return Learned(text_bytes=text_bytes, text_tokens=text_tokens, outputs=tuple(outputs))

    def learn(self, call: Call, usage: Usage) -> None:
        """Take in one priced answer."""
        if call.kind != "call":
            return
        request = call.request
        overhead = FRAMING_PER_MESSAGE * request.messages + request.tool_bytes // TOOL_BYTES_PER_TOKEN
        with self._lock:
            self._add(call.provider, call.model, call.who.node, usage.output_tokens)
            tokens = usage.input_tokens - overhead
            if request.text_bytes >= _MIN_TEXT_BYTES and tokens > 0 and not request.other_parts:
                self._add_ratio((call.provider, call.model), request.text_bytes, tokens)

    def _load(self, model: tuple[str, str]) -> None:
        rows = self._ledger.samples(*model, _KEEP)
        with self._lock:
            if len(self._loaded) >= _MODELS:
                self._loaded.clear()
                self._outputs.clear()
                self._ratio.clear()
            self._loaded[model] = time.monotonic()
            for key in [key for key in self._outputs if key[:2] == model]:
                del self._outputs[key]
            for node, _, _, output in reversed(rows):
                self._add(*model, node, output)

    def _add(self, provider: str, model: str, node: str | None, output: int) -> None:
        self._outputs.setdefault((provider, model, None), deque(maxlen=_KEEP)).append(output)
        if node is not None:
            self._outputs.setdefault((provider, model, node), deque(maxlen=_KEEP)).append(output)

    def _add_ratio(self, model: tuple[str, str], text_bytes: int, tokens: int) -> None:
        # Between 1 and 5 bytes a token, and halved now and then so that the latest calls weigh most.
        tokens = min(max(tokens, text_bytes // 5), text_bytes)
        known_bytes, known_tokens = self._ratio.get(model, (0, 0))
        if known_bytes > 1_000_000:  # noqa: PLR2004 - about the text of 64 long prompts
            known_bytes, known_tokens = known_bytes // 2, known_tokens // 2
        self._ratio[model] = (known_bytes + text_bytes, known_tokens + tokens)
