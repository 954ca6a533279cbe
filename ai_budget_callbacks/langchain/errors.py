"""Refusals as LangChain sees them: also non-retryable model errors, so that its own retries leave them alone.

`ModelError` with `is_retryable=False` escapes ModelRetry, ToolRetry and Summarization middleware and LangGraph's
node retries (measured, facts/langchain.md 1.4). It exists from langchain-core 1.6; before that a refusal is a
`RuntimeError`, which those middlewares retry: they send nothing, and lose seconds.
"""

from __future__ import annotations

from typing import TypeVar

import langchain_core.exceptions

from ai_budget_callbacks.errors import AIBudgetError, BudgetExceeded, PriceUnknown, UsageMissing

__all__ = ["LangChainBudgetExceeded", "LangChainPriceUnknown", "LangChainUsageMissing", "adapted"]

_ModelError: type[Exception] = getattr(langchain_core.exceptions, "ModelError", RuntimeError)


class LangChainBudgetExceeded(BudgetExceeded, _ModelError):  # type: ignore[misc, valid-type]
    """`BudgetExceeded`, raised through LangChain. Catch `BudgetExceeded`."""


class LangChainPriceUnknown(PriceUnknown, _ModelError):  # type: ignore[misc, valid-type]
    """`PriceUnknown`, raised through LangChain. Catch `PriceUnknown`."""


class LangChainUsageMissing(UsageMissing, _ModelError):  # type: ignore[misc, valid-type]
    """`UsageMissing`, raised through LangChain: a retry would pay again. Catch `UsageMissing`."""


E = TypeVar("E", bound=AIBudgetError)
_ADAPTED: dict[type[AIBudgetError], type[AIBudgetError]] = {
    BudgetExceeded: LangChainBudgetExceeded,
    PriceUnknown: LangChainPriceUnknown,
    UsageMissing: LangChainUsageMissing,
}


def adapted(error: AIBudgetError) -> AIBudgetError:
    """The same error in the class LangChain's wrappers do not retry; others as they are."""
    kind = _ADAPTED.get(type(error))
    if kind is None:
        return error
    copy = kind(error.message)
    copy.__dict__.update(error.__dict__)
    return copy
