"""What the installed LangChain has, asked of what is importable: `python -m tests.compat` runs old and new ones.

A case is left out only for what a version does not have, with the reason given here; where a version behaves
differently, the case says how.
"""

from __future__ import annotations

import inspect
from typing import Any

import anthropic.resources
import langchain_core.exceptions
import langchain_core.load
import langchain_openai.chat_models.base
from langchain.agents import middleware
from langchain_core.language_models import BaseChatModel
from langgraph.graph import StateGraph

from ai_budget_callbacks.langchain.errors import LangChainBudgetExceeded
from tests.support.lacking import lacks, needs, since

try:  # private; the public way to it are the middlewares that use it
    from langchain.agents.middleware._retry import default_retry_on
except ImportError:  # before langchain 1.1: they retried every Exception
    default_retry_on = None

__all__ = [
    "LACKS_CLAUDE_SPEED",
    "LACKS_DEFAULT_RETRY_ON",
    "LACKS_ERROR_HANDLER",
    "LACKS_MERGED_CONFIG",
    "LACKS_MODEL_ERROR",
    "LACKS_NODE_TIMEOUT",
    "LACKS_SPARED_REFUSALS",
    "LACKS_SUMMARY_TRIGGER",
    "LACKS_V3_EVENTS",
    "LOADS_ALLOWED_ONLY",
    "NAMES_STREAM_ERRORS",
    "SAYS_AGENT",
    "SAYS_AGENT_BESIDE_METADATA",
    "SAYS_TOOL_CALL_ID",
    "default_retry_on",
    "lacks",
    "lacks_middleware",
    "needs",
]


def lacks_middleware(name: str) -> str:
    """The same for one of langchain's middlewares."""
    return lacks("langchain", name, has=hasattr(middleware, name))


def _takes(call: Any, argument: str) -> bool:
    return argument in inspect.signature(call).parameters


LACKS_DEFAULT_RETRY_ON = lacks("langchain", "default_retry_on", has=default_retry_on)
LACKS_SUMMARY_TRIGGER = lacks(
    "langchain", "SummarizationMiddleware(trigger=)", has=_takes(middleware.SummarizationMiddleware, "trigger")
)
LACKS_ERROR_HANDLER = lacks("langgraph", "add_node(error_handler=)", has=_takes(StateGraph.add_node, "error_handler"))
LACKS_MERGED_CONFIG = lacks(
    "langgraph", "configs of its own merged with those of the run around it", has=since("langgraph", 1, 2, 4)
)
LACKS_NODE_TIMEOUT = lacks("langgraph", "add_node(timeout=)", has=_takes(StateGraph.add_node, "timeout"))
LACKS_V3_EVENTS = lacks("langchain-core", 'astream_events(version="v3")', has=hasattr(BaseChatModel, "stream_events"))
LACKS_CLAUDE_SPEED = lacks("anthropic", "create(speed=)", has=_takes(anthropic.resources.Messages.create, "speed"))
LACKS_MODEL_ERROR = lacks("langchain-core", "ModelError", has=hasattr(langchain_core.exceptions, "ModelError"))
LACKS_SPARED_REFUSALS = lacks(
    "langchain",
    "retries that leave a ModelError alone",
    has=default_retry_on and not default_retry_on(LangChainBudgetExceeded("no room")),
)
"""Whether ModelRetry, ToolRetry and Summarization retry refusals: before langchain-core 1.6 or langchain 1.3.16."""
SAYS_AGENT = since("langchain", 1, 2, 4)
"""Whether `create_agent(name=)` reaches the metadata of its model calls."""
SAYS_AGENT_BESIDE_METADATA = SAYS_AGENT and not LACKS_MERGED_CONFIG
"""Whether it does where the caller gives metadata too: older graphs put that in its place."""
SAYS_TOOL_CALL_ID = since("langchain-core", 1, 1, 2)
"""Whether a tool's start event has its `tool_call_id`."""
NAMES_STREAM_ERRORS = hasattr(langchain_openai.chat_models.base, "OpenAIConnectionError") and since("openai", 3)
"""Whether a connection that dies in a stream is the client's error, or what httpx raised."""
LOADS_ALLOWED_ONLY = _takes(langchain_core.load.loads, "allowed_objects")
"""Whether `loads` takes (and warns without) a list of what it may make."""
