"""LangChain and LangGraph: one callback handler that counts, prices and stops."""

from ai_budget_callbacks.langchain.handler import BudgetCallbackHandler
from ai_budget_callbacks.langchain.metered import MeteredEmbeddings, MeteredReranker

__all__ = ["BudgetCallbackHandler", "MeteredEmbeddings", "MeteredReranker"]
