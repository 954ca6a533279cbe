"""LangChain and LangGraph: one callback handler that counts, prices and stops."""

from ai_budget_callbacks.langchain.handler import BudgetCallbackHandler

__all__ = ["BudgetCallbackHandler"]
