"""What the installed LlamaIndex has, asked of what is importable: `python -m tests.compat` runs old and new ones.

A case is left out only for what a version does not have, with the reason given here; where a version behaves
differently, the case says how. The sibling of versions.py, which imports LangChain.
"""

from __future__ import annotations

import inspect
from importlib.metadata import PackageNotFoundError

import llama_index.core.chat_engine.context
import llama_index.core.response_synthesizers.refine
from llama_index.core import async_utils, llms
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.instrumentation.dispatcher import Dispatcher
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.anthropic.utils import CLAUDE_MODELS

from tests.support.lacking import lacks, needs, since

try:  # with llms-openai 0.3.27, which needs core 0.12.17
    from llama_index.llms.openai import OpenAIResponses
except ImportError:
    OpenAIResponses = None

try:  # in core 0.12.0 agents are no workflows
    import llama_index.core.agent.workflow as agents
except ImportError:
    agents = None

try:
    _WORKFLOWS_WRAP = not since("llama-index-workflows", 2)
    _STEPS_KEEP_CONTEXT, _WORKFLOWS = since("llama-index-workflows", 2, 9), "llama-index-workflows"
except PackageNotFoundError:  # they are a part of core 0.12.0, and let errors through
    _WORKFLOWS_WRAP = _STEPS_KEEP_CONTEXT = False
    _WORKFLOWS = "llama-index-core"

__all__ = [
    "CHATS_FROM_A_THREAD",
    "CLAUDE",
    "CLAUDE_IS_NATIVE",
    "CLAUDE_STREAMS_USAGE",
    "ENGINES_ASK_WHEN_READ",
    "LACKS_AGENTS",
    "LACKS_CACHE_IDX",
    "LACKS_EMBEDDINGS_CACHE",
    "LACKS_EMBEDDING_RETRIES",
    "LACKS_LOOP_IN_THREAD",
    "LACKS_BLOCKS",
    "LACKS_NATIVE_CLAUDE",
    "LACKS_RATE_LIMITER",
    "LACKS_RESPONSES",
    "LACKS_RUN_END",
    "LACKS_STEP_CONTEXT",
    "REFUSED_IN_WORKFLOW",
    "RESPONSES_ARE_NATIVE",
    "SPANS_NAME_CLASSES",
    "agents",
    "needs",
]


def _sends(model: type | None, method: str, call: str) -> bool:
    """Whether a model's own method makes a request of its own kind."""
    own = vars(model).get(method) if model is not None else None
    return own is not None and call in inspect.getsource(inspect.unwrap(own))


CLAUDE = next(
    name
    for name in ("claude-sonnet-4-5", "claude-sonnet-4-0", "claude-3-5-sonnet-20241022")
    if any(known.startswith(name) for known in CLAUDE_MODELS)
)
"""A Claude that llms-anthropic knows: it refuses names it does not."""
CLAUDE_IS_NATIVE = _sends(Anthropic, "structured_predict", "messages.parse")
"""Whether its `structured_predict` sends without any event: from llms-anthropic 0.10.5 on; before, it asks by a tool."""
CLAUDE_STREAMS_USAGE = since("llama-index-llms-anthropic", 0, 10, 2)
"""Whether its streams keep the event that has the usage."""
RESPONSES_ARE_NATIVE = _sends(OpenAIResponses, "structured_predict", "responses.parse")
"""The same of `OpenAIResponses`: from llms-openai 0.6.22 or a little before."""
ENGINES_ASK_WHEN_READ = "stream_call" in vars(llama_index.core.response_synthesizers.refine.DefaultRefineProgram)
"""Whether a streaming query engine starts its call when its stream is read: from core 0.14.22 on."""
CHATS_FROM_A_THREAD = hasattr(llama_index.core.chat_engine.context, "Thread")
"""Whether a context engine's `stream_chat` reads its model in a thread, and not in its synthesizer."""
SPANS_NAME_CLASSES = "type(instance).__name__" in inspect.getsource(Dispatcher)
"""Whether spans, and so trees and runs, are named by the instance's class; before, by the class that has the method."""
REFUSED_IN_WORKFLOW = "WorkflowRuntimeError" if _WORKFLOWS_WRAP else "BudgetExceeded"
"""What who runs an agent or workflow sees of a refusal: workflows before 2.0 put every error in one of their own."""
LACKS_AGENTS = lacks("llama-index-core", "agents that are workflows", has=agents)
LACKS_EMBEDDINGS_CACHE = lacks(
    "llama-index-core", "embeddings_cache=", has="embeddings_cache" in BaseEmbedding.model_fields
)
LACKS_EMBEDDING_RETRIES = lacks(
    "llama-index-embeddings-openai",
    "way to turn its own retries off",
    has=hasattr(OpenAIEmbedding, "_create_retry_decorator"),
)
LACKS_NATIVE_CLAUDE = lacks("llama-index-llms-anthropic", "native structured output", has=CLAUDE_IS_NATIVE)
LACKS_BLOCKS = lacks("llama-index-core", "content blocks", has=hasattr(llms, "ImageBlock"))
LACKS_LOOP_IN_THREAD = lacks(
    "llama-index-core", "loop in a thread for sync methods called in a loop", has=hasattr(async_utils, "concurrent")
)
LACKS_RATE_LIMITER = lacks("llama-index-core", "LLM(rate_limiter=)", has="rate_limiter" in BaseLLM.model_fields)
LACKS_RESPONSES = lacks("llama-index-llms-openai", "OpenAIResponses", has=OpenAIResponses)
LACKS_STEP_CONTEXT = lacks(_WORKFLOWS, "context of the caller in the threads of sync steps", has=_STEPS_KEEP_CONTEXT)
LACKS_CACHE_IDX = lacks("llama-index-llms-anthropic", "cache_idx=", has="cache_idx" in Anthropic.model_fields)
LACKS_RUN_END = lacks(_WORKFLOWS, "end of a run in the context of its caller", has=not (agents and _WORKFLOWS_WRAP))
