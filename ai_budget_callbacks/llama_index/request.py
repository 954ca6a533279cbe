"""A start event as a `Call`: which provider and model, how large, and whose. Reads content, keeps none of it.

Facts: facts/llamaindex.md 1 and 5. The event has the messages and the call's own arguments; what was set on the model
is read from the instance whose span the event comes from, by the names its integrations share (core 0.12 to 0.14).
"""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.asked import request_of
from ai_budget_callbacks.llama_index.models import LIMITS, said
from ai_budget_callbacks.sizes import Measure
from ai_budget_callbacks.usage import Call, Request, Who

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.llama_index.tree import Span

__all__ = ["build_call", "embedding_texts", "sizes_of", "who_of"]

_TEXTS = ("instructions", "system")  # text of a request that stands beside its messages


def build_call(
    *,
    event_id: str,
    span: Span | None,
    provider: str,
    model: str,
    request: Request,
    runs: tuple[Block, ...],
) -> Call:
    """The call a start event announces.

    Args:
        event_id: Its id; one for all reports of the request.
        span: Where it comes from.
        provider: Catalogue provider id.
        model: As asked for.
        request: Its sizes.
        runs: `track()` blocks around the start.
    """
    return Call(
        id=event_id,
        framework="llama_index",
        provider=provider,
        model=model,
        started_at=datetime.now(UTC),
        who=who_of(event_id, span, runs),
        request=request,
    )


def who_of(
    own_id: str | None,
    span: Span | None,
    runs: tuple[Block, ...],
    *,
    user: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Who:
    """Who something made here belongs to.

    Args:
        own_id: Its run id where there is no block and no span around; None where it then belongs to no run.
        span: The span it is made in, or comes from.
        runs: `track()` blocks around it.
        user: Whose it is; None for the block's user.
        metadata: More keys.
    """
    around = runs[-1] if runs else None
    run_id = runs[0].id if runs else (span.root if span else own_id)
    more = {str(key): str(value) for key, value in (metadata or {}).items()}
    return Who(
        run_id=run_id,
        root_seen=run_id is not None,
        user=user if user is not None or around is None else around.user,
        agent=span.agent if span else None,
        node=span.step if span else None,
        tool=span.tool if span else None,
        tool_call_id=span.tool_call_id if span else None,
        metadata=MappingProxyType((dict(around.metadata) if around else {}) | more),
        path=span.path[:-1] if span else (),
    )


def sizes_of(
    messages: Sequence[Any], params: Mapping[str, Any], count: Callable[[str], int | None] | None = None
) -> Request:
    """The sizes of a request.

    Args:
        messages: Chat messages, or a prompt's text alone.
        params: Its parameters: see `params_of`.
        count: What counts a text's tokens as the model does, or None.
    """
    measure = Measure(count)
    for name in _TEXTS:
        if isinstance(params.get(name), str):
            measure.text(params[name])
    for message in messages:
        _measure(message, measure)
    limits = [params[name] for name in LIMITS if type(params.get(name)) is int]
    return request_of(params, measure, messages=len(messages), max_output_tokens=max(limits, default=None))


def _measure(message: Any, measure: Measure) -> None:
    if isinstance(message, str):
        measure.text(message)
        return
    extra = getattr(message, "additional_kwargs", None) or {}
    for key, value in extra.items():
        if key not in {"cache_control", "usage"}:
            measure.json(value)
    measure.cached = measure.cached or "cache_control" in extra
    blocks = getattr(message, "blocks", None)
    if blocks is None:  # a message of another kind: all that is seen is its text
        measure.text(str(getattr(message, "content", message) or ""))
    for block in blocks or ():
        _measure_block(block, measure)


def _measure_block(block: Any, measure: Measure) -> None:
    kind = getattr(block, "block_type", "")
    if kind == "text":
        measure.text(block.text or "")
    elif kind == "image":
        measure.images += 1
    elif kind in {"audio", "video", "document"}:
        measure.parts += 1
    elif kind == "cache":
        measure.cached = True
    elif kind == "thinking":
        measure.text(block.content or "")
        measure.json(block.additional_information)
    else:
        dump = getattr(block, "model_dump", None)
        measure.json(dump() if dump is not None else block)


def embedding_texts(span: Span | None) -> tuple[str, ...] | None:
    """Texts of the embedding request that starts in a span, or None where the span does not say.

    The event has none (facts/llamaindex.md 5). A batch method makes one event for each `embed_batch_size` texts, in
    their order. Texts that the model's cache has are left out: they are not sent.
    """
    if span is None:
        return None
    for name in ("text", "query"):
        text = span.arguments.get(name)
        if isinstance(text, str):
            return _not_cached(span.instance, (text,))
    texts = span.arguments.get("texts")
    size = said(span.instance, "embed_batch_size")
    if not isinstance(texts, (list, tuple)) or type(size) is not int or size < 1:
        return None
    first, span.batches = span.batches * size, span.batches + 1
    return _not_cached(span.instance, tuple(map(str, texts[first : first + size])))


def _not_cached(instance: Any, texts: tuple[str, ...]) -> tuple[str, ...]:
    cache = said(instance, "embeddings_cache")
    if cache is None:
        return texts
    return tuple(text for text in texts if not _has(cache, text))


def _has(cache: Any, text: str) -> bool:
    try:
        return cache.get(key=text, collection="embeddings") is not None
    except Exception:  # a store without a sync way: taken as a miss, which errs to counting
        return False
