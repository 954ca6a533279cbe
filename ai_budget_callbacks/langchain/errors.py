"""Refusals as LangChain sees them: also non-retryable model errors, so that its own retries leave them alone.

`ModelError` with `is_retryable=False` escapes ModelRetry, ToolRetry and Summarization middleware and LangGraph's
node retries (measured, facts/langchain.md 1.4); it exists from langchain-core 1.6.
"""

from __future__ import annotations

from typing import TypeVar

from langchain_core.exceptions import ModelError

from ai_budget_callbacks.errors import AIBudgetError, BudgetExceeded, PriceUnknown, UsageMissing

__all__ = ["LangChainBudgetExceeded", "LangChainPriceUnknown", "LangChainUsageMissing", "adapted"]


class LangChainBudgetExceeded(BudgetExceeded, ModelError):
    """`BudgetExceeded`, raised through LangChain. Catch `BudgetExceeded`."""


class LangChainPriceUnknown(PriceUnknown, ModelError):
    """`PriceUnknown`, raised through LangChain. Catch `PriceUnknown`."""


class LangChainUsageMissing(UsageMissing, ModelError):
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
