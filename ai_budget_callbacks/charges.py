"""Money beyond model calls, as calls of kind `charge`: a tool, a retriever, a reranker, a fee. Pure."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.booking import Outcome
from ai_budget_callbacks.errors import ConfigError
from ai_budget_callbacks.money import pico_from_usd
from ai_budget_callbacks.usage import Call, Request, Usage, Who

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from ai_budget_callbacks.blocks import Block

__all__ = ["charge_call", "one_use", "spent", "who_around"]

ONE_USE = Usage(buckets=MappingProxyType({"request_fee": 1}), reader="one use")


def charge_call(kind: str, name: str, who: Who, *, charge_id: str | None = None, framework: str = "direct") -> Call:
    """A charge that is about to be made.

    Args:
        kind: What it is for: `"tool"`, `"retriever"`, `"reranker"` or `"charge"`; stands where a call has its provider.
        name: Its name; stands where a call has its model.
        who: Attribution.
        charge_id: The framework's run id, where it has one.
        framework: Who announced it.

    Raises:
        ConfigError: `name` is no text, or empty.
    """
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"charge(name={name!r}) must say what the money was for.")
    return Call(
        id=charge_id or f"charge-{uuid.uuid4().hex}",
        kind="charge",
        framework=framework,
        provider=kind,
        model=name,
        started_at=datetime.now(UTC),
        who=who,
        request=Request(messages=0, output=False),
    )


def one_use(response: Any = None) -> Outcome:
    """It was used once; its price says what that costs.

    Args:
        response: What it returned, for an exception that must carry it.
    """
    return Outcome(kind="answer", usage=ONE_USE, response=response)


def spent(usd: str | Decimal) -> Outcome:
    """The caller says what it cost.

    Args:
        usd: USD, as a decimal string or `Decimal`.

    Raises:
        ConfigError: It is no positive amount, or a float, whose digits are not the ones that were written.
    """
    if isinstance(usd, float):
        raise ConfigError(f"charge(usd={usd!r}) must be a decimal string or Decimal: a float is not exact.")
    pico = pico_from_usd(usd, what="charge(usd=…)")
    if pico <= 0:
        raise ConfigError(f"charge(usd={usd!r}) must be more than 0.")
    return Outcome(kind="answer", stated_pico=pico)


def who_around(
    blocks: tuple[Block, ...], *, user: str | None, run: str | None, metadata: Mapping[str, object] | None
) -> Who:
    """Who a charge made by the user's own code belongs to: the blocks around it, and what the user says.

    Args:
        blocks: `track()` blocks around the charge, outermost first.
        user: Whose it is; None for the innermost block's user.
        run: Run id, where there is no block.
        metadata: More keys for `by` and reports.
    """
    inner = blocks[-1] if blocks else None
    run_id = blocks[0].id if blocks else run
    own = {str(key): str(value) for key, value in (metadata or {}).items()}
    return Who(
        run_id=run_id,
        root_seen=run_id is not None,
        user=user if user is not None or inner is None else inner.user,
        metadata=MappingProxyType((inner.metadata if inner is not None else {}) | own),
    )
