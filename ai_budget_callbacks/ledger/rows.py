"""Entries to and from their row: the one place that knows the columns."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson

from ai_budget_callbacks.ledger import Entry
from ai_budget_callbacks.money import usd_text
from ai_budget_callbacks.usage import Call, Other, Request, Terms, Usage, Who

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_budget_callbacks.ledger import Posting
    from ai_budget_callbacks.pricing import Cost

__all__ = ["call_json", "call_of", "dumps", "entry_fields", "entry_of", "iso", "lines_of", "moment", "row_of"]

_WHO = ("run_id", "user", "thread", "agent", "node", "tool", "tool_call_id")


# columns that are an entry's own fields, in the order of INSERT_ENTRY (statements.py) after `key`
_PLAIN = (
    "kind",
    "status",
    "reason",
    "at",
    "started_at",
    "call_id",
    "framework",
    "provider",
    "model",
    "requested_model",
    "response_model",
    "response_id",
    *_WHO,
    "cost_pico",
    "booked_pico",
    "booked_tokens",
    "adjusts",
)
_AT, _STARTED = _PLAIN.index("at"), _PLAIN.index("started_at")
_STANDARD = Terms()
_TERMS = tuple(item.name for item in dataclasses.fields(Terms))


def dumps(value: Any) -> str:
    """Compact JSON; values JSON does not know become text."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # integers past 64 bits and lone surrogates, as damaged provider JSON may have them
        return json.dumps(value, default=str)


def iso(at: datetime) -> str:
    """UTC ISO-8601 with microseconds: sortable as text."""
    return (at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """Back from `iso`."""
    return datetime.fromisoformat(text)


def call_json(call: Call) -> str:
    """What a sweep in another process needs to write the entry of a call it never saw."""
    who = call.who
    return dumps(
        {
            "kind": call.kind,
            "framework": call.framework,
            "provider": call.provider,
            "model": call.model,
            "started_at": iso(call.started_at),
            "text_bytes": call.request.text_bytes,
            "who": [getattr(who, name) for name in _WHO],
            "root_seen": who.root_seen,
            "metadata": dict(who.metadata),
            "path": who.path,
        }
    )


def call_of(key: str, text: str) -> Call:
    """Back from `call_json` and the call's key; request sizes beyond the text are not kept."""
    data = orjson.loads(text)
    who = Who(
        **dict(zip(_WHO, data["who"], strict=True)),
        root_seen=data["root_seen"],
        metadata=MappingProxyType(data["metadata"]),
        path=_path(data.get("path")),
    )
    kind = data.get("kind", "call")
    return Call(
        id=key.removeprefix(f"{kind}:") if kind != "call" else key,
        kind=kind,
        framework=data["framework"],
        provider=data["provider"],
        model=data["model"],
        started_at=moment(data["started_at"]),
        who=who,
        request=Request(text_bytes=data["text_bytes"]),
    )


def entry_fields(posting: Posting, *, kind: str, booked_pico: int | None, adjusts: int | None) -> dict[str, Any]:
    """Everything of an `Entry` but its id, from what is to be booked."""
    call, who, usage, cost = posting.call, posting.call.who, posting.usage, posting.cost
    source = None if cost is None or cost.source is None else cost.source
    return {
        "kind": kind,
        "status": posting.status,
        "reason": posting.reason,
        "at": posting.ended_at,
        "started_at": call.started_at,
        "call_id": call.id,
        "framework": call.framework,
        "provider": call.provider,
        "model": (source.model if source is not None else "") or posting.response_model or call.model,
        "requested_model": call.model,
        "response_model": posting.response_model,
        "response_id": posting.response_id,
        "run_id": who.run_id,
        "user": who.user,
        "thread": who.thread,
        "agent": who.agent,
        "node": who.node,
        "tool": who.tool,
        "tool_call_id": who.tool_call_id,
        "metadata": who.metadata,
        "usage": usage,
        "cost_pico": None if cost is None else cost.pico,
        "booked_pico": booked_pico,
        "booked_tokens": posting.booked_tokens,
        "adjusts": adjusts,
        "flags": () if usage is None else usage.flags,
        "lines": () if cost is None else lines_of(cost),
        "source": None if source is None else source.to_dict(),
        "path": who.path,
        "terms": None if usage is None else usage.terms,
        "added_tokens": None,
    }


def row_of(
    fields: Mapping[str, Any],
    *,
    key: str,
    amounts: Mapping[int, int],
    held: Mapping[int, int],
    text_bytes: int,
    content: str | None,
) -> tuple[Any, ...]:
    """Column values in the order of INSERT_ENTRY."""
    usage: Usage | None = fields["usage"]
    pico = fields["cost_pico"]
    tokens = fields["added_tokens"]
    if tokens is None and usage is not None:
        tokens = (usage.input_tokens, usage.output_tokens)
    values = [fields[name] for name in _PLAIN]
    values[_AT], values[_STARTED] = iso(fields["at"]), iso(fields["started_at"])
    return (
        key,
        *values,
        dumps(dict(fields["metadata"])) if fields["metadata"] else None,
        None
        if usage is None
        else dumps({**usage.buckets, **{other.model: dict(other.buckets) for other in usage.others}}),
        None if usage is None or usage.raw is None else dumps(usage.raw),
        *(tokens or (None, None)),
        text_bytes,
        None if pico is None else usd_text(pico),
        dumps(dict(amounts)),
        dumps(dict(held)),
        None if usage is None else usage.reader,
        dumps(fields["flags"]) if fields["flags"] else None,
        dumps(fields["lines"]) if fields["lines"] else None,
        None if fields["source"] is None else dumps(fields["source"]),
        content,
        dumps(fields["path"]) if fields["path"] else None,
        None if fields["terms"] is None else _terms_json(fields["terms"]),
    )


def _terms_json(terms: Terms) -> str:
    """Only what differs from the standard, so that most rows have two characters of it."""
    if terms == _STANDARD:
        return "{}"
    return dumps({name: value for name in _TERMS if (value := getattr(terms, name)) != getattr(_STANDARD, name)})


def _path(steps: Any) -> tuple[tuple[str, str], ...]:
    return tuple((str(step), str(name)) for step, name in steps or ())


def lines_of(cost: Cost) -> tuple[dict[str, Any], ...]:
    """The lines of a cost as they are kept."""
    return tuple(line.to_dict() for line in cost.lines)


def _usage_of(row: Mapping[str, Any], flags: tuple[str, ...], terms: Terms) -> Usage:
    counts = orjson.loads(row["usage"])  # another model's counts stand under its name
    others = [(name, found) for name, found in counts.items() if isinstance(found, dict)]
    return Usage(
        buckets=MappingProxyType({name: count for name, count in counts.items() if type(count) is int}),
        others=tuple(Other(model=name, buckets=MappingProxyType(found)) for name, found in others),
        reader=row["reader"] or "counted",
        raw=orjson.loads(row["raw_usage"]) if row["raw_usage"] else None,
        flags=flags,
        terms=terms,
    )


def entry_of(row: Mapping[str, Any]) -> Entry:
    """An entry from its row."""
    flags = tuple(orjson.loads(row["flags"])) if row["flags"] else ()
    source = orjson.loads(row["source"]) if row["source"] else None
    terms = Terms(**orjson.loads(row["terms"])) if row["terms"] else None
    usage = None if row["usage"] is None else _usage_of(row, flags, terms or _STANDARD)
    return Entry(
        id=row["id"],
        kind=row["kind"],
        status=row["status"],
        reason=row["reason"],
        at=moment(row["at"]),
        started_at=moment(row["started_at"]),
        call_id=row["call_id"],
        framework=row["framework"],
        provider=row["provider"],
        model=row["model"],
        requested_model=row["requested_model"],
        response_model=row["response_model"],
        response_id=row["response_id"],
        **{name: row[name] for name in _WHO},
        metadata=MappingProxyType(orjson.loads(row["metadata"]) if row["metadata"] else {}),
        usage=usage,
        cost_pico=row["cost_pico"],
        booked_pico=row["booked_pico"],
        booked_tokens=row["booked_tokens"],
        adjusts=row["adjusts"],
        flags=flags,
        lines=tuple(orjson.loads(row["lines"])) if row["lines"] else (),
        source=source,
        path=_path(orjson.loads(row["path"]) if row["path"] else None),
        terms=terms,
        added_tokens=None if row["adjusts"] is None else _added(row, usage),
    )


def _added(row: Mapping[str, Any], usage: Usage | None) -> tuple[int, int] | None:
    """The counts an adjustment adds, where they are not simply those of its usage."""
    own = (None, None) if usage is None else (usage.input_tokens, usage.output_tokens)
    added = (row["input_tokens"], row["output_tokens"])
    return None if added == own else added
