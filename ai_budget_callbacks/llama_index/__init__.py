"""LlamaIndex: one callback handler that counts, prices and stops."""

from ai_budget_callbacks.llama_index.handler import BudgetCallbackHandler

__all__ = ["BudgetCallbackHandler"]
