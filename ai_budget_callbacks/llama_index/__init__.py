"""LlamaIndex: one callback handler that counts, prices and stops."""

# Before our own modules: where track() waits for its import, it loads them, and must find none of them half loaded.
import llama_index.core  # noqa: F401

from ai_budget_callbacks.llama_index.handler import BudgetCallbackHandler

__all__ = ["BudgetCallbackHandler"]
