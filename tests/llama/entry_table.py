"""Every way into LlamaIndex that sends requests (facts/llamaindex.md 1), one case each.

`python -m tests.llama.entry_table` runs them under every installation and prints what happened: requests and entries
with room, requests after the limit, and what the caller sees. test_entry_points.py asserts it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core import (
    KeywordTableIndex,
    PromptTemplate,
    Settings,
    SummaryIndex,
    TreeIndex,
    get_response_synthesizer,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.evaluation import AnswerRelevancyEvaluator
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.query_engine import SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.core.types import PydanticProgramMode

from ai_budget_callbacks import Budget, BudgetExceeded, Meter, install, track
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.llama_index import BudgetCallbackHandler
from ai_budget_callbacks.scope import reinstall
from tests.llama import kit
from tests.llama.kit import ASK, QUESTION, City
from tests.llama.own_workflows import OneStep
from tests.support import llama_versions
from tests.support.audit import read_back
from tests.support.llama_versions import LACKS_AGENTS, LACKS_RESPONSES, agents
from tests.support.provider import FarEnd

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT = PromptTemplate("Name a city: {topic}")


@dataclass(frozen=True)
class Way:
    """One way in.

    Attributes:
        name: As users write it.
        run: Goes it, given a `World`.
        requests: How many it makes when nothing stops it.
        statuses: Statuses its entries may have.
        sees: What the caller sees on a used-up budget: the error's name, or "returns". A block raises its own at its end.
        reply: What the server answers, where it is not `kit.script`.
        lacks: Why it cannot be gone with the installed version.
    """

    name: str
    run: Callable[[World], Any]
    requests: int = 1
    statuses: frozenset[str] = frozenset({"priced"})
    sees: str = "BudgetExceeded"
    reply: Any = kit.script
    lacks: str = ""

    def __str__(self) -> str:
        return self.name


class World:
    """Models and what is built of them, all with the same handlers in their constructors."""

    def __init__(self, far: Any, *gates: Any) -> None:
        self.far, self.gates = far, gates

    def __getattr__(self, name: str) -> Any:
        """`world.chat`, `world.claude` …: a model of `kit`, made once."""
        made = getattr(kit, name)(self.far, *self.gates)
        setattr(self, name, made)
        return made

    def index(self, *texts: str) -> Any:
        """An index whose embeddings cost."""
        return kit.index_of(self.embedding, *texts)


WAYS: list[Way] = []


def way(name: str, **options: Any) -> Callable[[Any], Any]:
    """Register a way."""

    def keep(run: Any) -> Any:
        WAYS.append(Way(name, run, **options))
        return run

    return keep


def _all(stream: Any) -> None:
    for _ in stream:
        pass


async def _all_of(stream: Any) -> None:
    async for _ in stream if hasattr(stream, "__aiter__") else await stream:
        pass


PRICED = frozenset({"priced"})
_UNSEEN = frozenset({"estimated"})
CLAUDE_STREAMED = PRICED if llama_versions.CLAUDE_STREAMS_USAGE else _UNSEEN
CLAUDE_PARSED = _UNSEEN if llama_versions.CLAUDE_IS_NATIVE else PRICED  # else by a tool, through its own chat
CLAUDE_PARSED_STREAM = frozenset({"unknown"}) if llama_versions.CLAUDE_IS_NATIVE else CLAUDE_STREAMED
RESPONSES_PARSED = _UNSEEN if llama_versions.RESPONSES_ARE_NATIVE else PRICED


def _of_model(label: str, model: str, streamed: frozenset[str] = PRICED, lacks: str = "") -> None:
    """The eight methods of a model."""

    def get(world: World) -> Any:
        return getattr(world, model)

    way(f"{label} chat", lacks=lacks)(lambda world: get(world).chat(ASK))
    way(f"{label} stream_chat", statuses=streamed, lacks=lacks)(lambda world: _all(get(world).stream_chat(ASK)))
    way(f"{label} achat", lacks=lacks)(lambda world: get(world).achat(ASK))
    way(f"{label} astream_chat", statuses=streamed, lacks=lacks)(lambda world: _all_of(get(world).astream_chat(ASK)))
    way(f"{label} complete", lacks=lacks)(lambda world: get(world).complete(QUESTION))
    way(f"{label} stream_complete", statuses=streamed, lacks=lacks)(
        lambda world: _all(get(world).stream_complete(QUESTION))
    )
    way(f"{label} acomplete", lacks=lacks)(lambda world: get(world).acomplete(QUESTION))
    way(f"{label} astream_complete", statuses=streamed, lacks=lacks)(
        lambda world: _all_of(get(world).astream_complete(QUESTION))
    )


_of_model("OpenAI", "chat")
_of_model("OpenAI instruct", "instruct")
_of_model("OpenAIResponses", "responses", lacks=LACKS_RESPONSES)
_of_model("Anthropic", "claude", CLAUDE_STREAMED)

way("OpenAILike chat")(lambda world: world.like.chat(ASK))
way("OpenAILike stream_chat", statuses=frozenset({"estimated"}))(lambda world: _all(world.like.stream_chat(ASK)))
way("predict")(lambda world: world.chat.predict(PROMPT, topic="a"))
way("apredict")(lambda world: world.chat.apredict(PROMPT, topic="a"))
way("stream")(lambda world: _all(world.chat.stream(PROMPT, topic="a")))
way("astream")(lambda world: _all_of(world.chat.astream(PROMPT, topic="a")))
way("chat_with_tools")(lambda world: world.chat.chat_with_tools([kit.look_up], user_msg=QUESTION))
way("achat_with_tools")(lambda world: world.chat.achat_with_tools([kit.look_up], user_msg=QUESTION))
way("stream_chat_with_tools")(lambda world: _all(world.chat.stream_chat_with_tools([kit.look_up], user_msg=QUESTION)))
way("predict_and_call")(lambda world: world.chat.predict_and_call([kit.look_up], user_msg=QUESTION))
way("apredict_and_call")(lambda world: world.chat.apredict_and_call([kit.look_up], user_msg=QUESTION))


# -- structured output

way("structured_predict")(lambda world: world.chat.structured_predict(City, PROMPT, topic="a"))
way("astructured_predict")(lambda world: world.chat.astructured_predict(City, PROMPT, topic="a"))
way("stream_structured_predict")(lambda world: _all(world.chat.stream_structured_predict(City, PROMPT, topic="a")))
way("astream_structured_predict")(lambda world: _all_of(world.chat.astream_structured_predict(City, PROMPT, topic="a")))
way("structured_predict by a function", requests=1)(
    lambda world: kit.chat(
        world.far, *world.gates, pydantic_program_mode=PydanticProgramMode.FUNCTION
    ).structured_predict(City, PROMPT, topic="a")
)
way("as_structured_llm chat")(lambda world: world.chat.as_structured_llm(City).chat(ASK))
way("as_structured_llm achat")(lambda world: world.chat.as_structured_llm(City).achat(ASK))
way("as_structured_llm stream_chat")(lambda world: _all(world.chat.as_structured_llm(City).stream_chat(ASK)))
way("as_structured_llm complete")(lambda world: world.chat.as_structured_llm(City).complete(QUESTION))
way("as_structured_llm acomplete")(lambda world: world.chat.as_structured_llm(City).acomplete(QUESTION))

way("Anthropic structured_predict (native)", statuses=CLAUDE_PARSED)(
    lambda world: world.claude.structured_predict(City, PROMPT, topic="a")
)
way("Anthropic astructured_predict (native)", statuses=CLAUDE_PARSED)(
    lambda world: world.claude.astructured_predict(City, PROMPT, topic="a")
)
way("Anthropic stream_structured_predict (native)", statuses=CLAUDE_PARSED_STREAM)(
    lambda world: _all(world.claude.stream_structured_predict(City, PROMPT, topic="a"))
)
way("Anthropic as_structured_llm chat (native)", statuses=CLAUDE_PARSED)(
    lambda world: world.claude.as_structured_llm(City).chat(ASK)
)
way("OpenAIResponses structured_predict (native)", statuses=RESPONSES_PARSED, lacks=LACKS_RESPONSES)(
    lambda world: world.responses.structured_predict(City, PROMPT, topic="a")
)
way("OpenAIResponses astructured_predict (native)", statuses=RESPONSES_PARSED, lacks=LACKS_RESPONSES)(
    lambda world: world.responses.astructured_predict(City, PROMPT, topic="a")
)
way("OpenAIResponses stream_structured_predict", lacks=LACKS_RESPONSES)(
    lambda world: _all(world.responses.stream_structured_predict(City, PROMPT, topic="a"))
)


# -- embeddings

TEXTS = ["one", "two", "three", "four", "five"]
way("get_text_embedding", statuses=_UNSEEN)(lambda world: world.embedding.get_text_embedding("one"))
way("get_query_embedding", statuses=_UNSEEN)(lambda world: world.embedding.get_query_embedding("one"))
way("aget_text_embedding", statuses=_UNSEEN)(lambda world: world.embedding.aget_text_embedding("one"))
way("aget_query_embedding", statuses=_UNSEEN)(lambda world: world.embedding.aget_query_embedding("one"))
way("get_text_embedding_batch", requests=3, statuses=_UNSEEN)(
    lambda world: world.embedding.get_text_embedding_batch(TEXTS)
)
way("aget_text_embedding_batch", requests=3, statuses=_UNSEEN)(
    lambda world: world.embedding.aget_text_embedding_batch(TEXTS)
)
way("VectorStoreIndex.from_documents", statuses=_UNSEEN)(lambda world: world.index())
way("retriever", statuses=_UNSEEN)(lambda world: _retrieve(world))

_MIXED = frozenset({"priced", "estimated"})


def _free(world: World) -> Any:
    """An index that costs nothing to make; its queries are embedded by a model that costs."""
    index = kit.index_of()
    index._embed_model = world.embedding
    return index


def _retrieve(world: World) -> Any:
    return _free(world).as_retriever().retrieve(QUESTION)


# -- engines; the index costs nothing to make, each query is embedded and answered

way("query engine", requests=2, statuses=_MIXED)(
    lambda world: _free(world).as_query_engine(llm=world.chat).query(QUESTION)
)
way("query engine aquery", requests=2, statuses=_MIXED)(
    lambda world: _free(world).as_query_engine(llm=world.chat).aquery(QUESTION)
)
way("query engine streaming", requests=2, statuses=_MIXED)(
    lambda world: _all(_free(world).as_query_engine(llm=world.chat, streaming=True).query(QUESTION).response_gen)
)
way("response synthesizer")(lambda world: _synthesize(world, "compact"))
way("tree_summarize")(lambda world: _synthesize(world, "tree_summarize"))


def _synthesize(world: World, mode: str) -> Any:
    nodes = [NodeWithScore(node=TextNode(text="Two and two is four."), score=1.0)]
    return get_response_synthesizer(llm=world.chat, response_mode=mode).synthesize(QUESTION, nodes)


way("simple chat engine")(lambda world: _engine(world, "simple").chat(QUESTION))
way("context chat engine", requests=2, statuses=_MIXED)(lambda world: _engine(world, "context").chat(QUESTION))
way("context chat engine achat", requests=2, statuses=_MIXED)(lambda world: _engine(world, "context").achat(QUESTION))
way("context chat engine stream_chat", requests=2, statuses=_MIXED)(
    lambda world: _all(_engine(world, "context").stream_chat(QUESTION).response_gen)
)
way("condense_plus_context chat engine", requests=2, statuses=_MIXED)(
    lambda world: _engine(world, "condense_plus_context").chat(QUESTION)
)


@way("context chat engine astream_chat", requests=2, statuses=_MIXED)
async def _(world: World) -> None:
    answer = await _engine(world, "context").astream_chat(QUESTION)
    await _all_of(answer.async_response_gen())


def _engine(world: World, mode: str) -> Any:
    return _free(world).as_chat_engine(chat_mode=mode, llm=world.chat)


def sub_questions(request: Any) -> Reply:
    """Two sub-questions first, then answers."""
    text = str(request.body.get("messages") or "")
    if request.path.endswith("/embeddings"):
        return Reply(input_tokens=1000)
    made = '```json\n{"items": [{"sub_question": "a?", "tool_name": "facts"}, {"sub_question": "b?", "tool_name": "facts"}]}\n```'
    asks = "sub-questions" in text or "sub_question" in text
    return Reply(text=made if asks else "Four.", input_tokens=1000, output_tokens=200)


@way("SubQuestionQueryEngine", requests=6, statuses=_MIXED, reply=sub_questions)
def _(world: World) -> Any:
    return _sub_question(world, use_async=False).query(QUESTION)


@way("SubQuestionQueryEngine async", requests=6, statuses=_MIXED, reply=sub_questions)
def _(world: World) -> Any:
    return _sub_question(world, use_async=True).aquery(QUESTION)


def _sub_question(world: World, *, use_async: bool) -> Any:
    tool = QueryEngineTool.from_defaults(_free(world).as_query_engine(llm=world.chat), name="facts", description="d")
    return SubQuestionQueryEngine.from_defaults(
        query_engine_tools=[tool],
        llm=world.chat,
        question_gen=LLMQuestionGenerator.from_defaults(llm=world.chat),
        response_synthesizer=get_response_synthesizer(llm=world.chat, use_async=use_async),
        use_async=use_async,
    )


# -- sync methods that run async ones in a loop of their own


@way("accumulate use_async", requests=2)
def _(world: World) -> Any:
    engine = SummaryIndex(_nodes(2)).as_query_engine(llm=world.chat, response_mode="accumulate", use_async=True)
    return engine.query(QUESTION)


@way("SubQuestionQueryEngine use_async", requests=6, statuses=_MIXED, reply=sub_questions)
def _(world: World) -> Any:
    return _sub_question(world, use_async=True).query(QUESTION)


@way("QueryFusionRetriever", statuses=_UNSEEN)
def _(world: World) -> Any:
    return QueryFusionRetriever([_free(world).as_retriever()], llm=world.chat, num_queries=1).retrieve(QUESTION)


@way("QueryFusionRetriever with more queries", requests=3, statuses=_MIXED)
def _(world: World) -> Any:
    return QueryFusionRetriever([_free(world).as_retriever()], llm=world.chat).retrieve(QUESTION)


@way("IngestionPipeline with an extractor", requests=2)
def _(world: World) -> Any:
    return IngestionPipeline(transformations=[SummaryExtractor(llm=world.chat)]).run(nodes=_nodes(2))


def one_keyword(_: Any) -> Reply:
    """A single word: several ask for NLTK's stop words, which older versions of core download."""
    return Reply(text="KEYWORDS: Bonn", input_tokens=1000, output_tokens=200)


@way("KeywordTableIndex use_async", requests=2, reply=one_keyword)
def _(world: World) -> Any:
    return KeywordTableIndex(_nodes(2), llm=world.chat, use_async=True)


@way("TreeIndex use_async", requests=2)
def _(world: World) -> Any:
    return TreeIndex(_nodes(4), llm=world.chat, num_children=2, use_async=True)


@way("evaluator")
def _(world: World) -> Any:
    return AnswerRelevancyEvaluator(llm=world.chat).evaluate(query=QUESTION, response="Four.")


def _nodes(number: int) -> list[TextNode]:
    return [TextNode(text=f"Fact {item}.") for item in range(number)]


# -- agents and workflows


@way("FunctionAgent", requests=2, sees=llama_versions.REFUSED_IN_WORKFLOW, lacks=LACKS_AGENTS)
async def _(world: World) -> Any:
    return await agents.FunctionAgent(llm=world.chat, tools=[kit.look_up]).run(QUESTION)


@way("FunctionAgent, not streaming", requests=2, sees=llama_versions.REFUSED_IN_WORKFLOW, lacks=LACKS_AGENTS)
async def _(world: World) -> Any:
    return await agents.FunctionAgent(llm=world.chat, tools=[kit.look_up], streaming=False).run(QUESTION)


@way(
    "Anthropic FunctionAgent",
    requests=2,
    statuses=CLAUDE_STREAMED,
    sees=llama_versions.REFUSED_IN_WORKFLOW,
    lacks=LACKS_AGENTS,
)
async def _(world: World) -> Any:
    return await agents.FunctionAgent(llm=world.claude, tools=[kit.look_up]).run(QUESTION)


@way("AgentWorkflow", requests=2, sees=llama_versions.REFUSED_IN_WORKFLOW, lacks=LACKS_AGENTS)
async def _(world: World) -> Any:
    helper = agents.FunctionAgent(name="helper", description="d", llm=world.chat, tools=[kit.look_up])
    return await agents.AgentWorkflow(agents=[helper], root_agent="helper").run(QUESTION)


def reasons(request: Any) -> Reply:
    """ReAct in two steps."""
    seen = "Observation:" in str(request.body["messages"][-1])
    act = 'Thought: I look it up.\nAction: look_up\nAction Input: {"topic": "sums"}'
    text = "Thought: I can answer without using any more tools.\nAnswer: Four." if seen else act
    return Reply(text=text, input_tokens=1000, output_tokens=200)


@way("ReActAgent", requests=2, reply=reasons, sees=llama_versions.REFUSED_IN_WORKFLOW, lacks=LACKS_AGENTS)
async def _(world: World) -> Any:
    return await agents.ReActAgent(llm=world.chat, tools=[kit.look_up]).run(QUESTION)


@way("Workflow step", sees=llama_versions.REFUSED_IN_WORKFLOW)
async def _(world: World) -> Any:
    workflow = OneStep()
    workflow.llm = world.chat
    return await workflow.run(question=QUESTION)


# -- installations

INSTALLATIONS = ("track()", "install()", "Settings", "callback_manager=")


@dataclass
class Seen:
    """What happened on one way."""

    sent: int
    entries: int
    statuses: list[str]
    held: int
    sees: str
    exceeded: bool
    billed: Any
    booked: Any


def go(way_in: Way, installation: str, ledger: Path, *, used_up: bool) -> Seen:
    """Go a way under an installation, with room for everything or with a budget of one call that is used up."""
    with FarEnd(way_in.reply) as far:
        budgets = (
            [Budget(calls=1, name="one")] if used_up else [Budget(usd="1", name="room"), Budget(calls=99, name="n")]
        )
        meter = Meter(budgets, ledger=ledger)
        handler = BudgetCallbackHandler(meter)
        try:
            if used_up:  # by a call of its own, which is taken off the count
                with track(meter=meter):
                    kit.chat(far).complete("the one")
            before = len(far.requests)
            sees, exceeded = _under(way_in, installation, far, meter, handler)
            books = read_back(ledger)
            return Seen(
                sent=len(far.requests) - before,
                entries=len(books.entries) - before,
                statuses=books.statuses[before:],
                held=len(books.holds),
                sees=sees,
                exceeded=exceeded or handler.exceeded,
                billed=far.billed_usd,
                booked=books.booked_usd,
            )
        finally:
            handler.close()
            meter.close()


def _under(way_in: Way, installation: str, far: Any, meter: Meter, handler: Any) -> tuple[str, bool]:
    if installation == "track()":
        run = None
        try:
            with track(meter=meter) as run:
                sees = _go(way_in, World(far))
        except BudgetExceeded:
            return "BudgetExceeded", True
        return sees, run.exceeded
    if installation == "install()":
        install(meter)
        try:
            return _go(way_in, World(far)), False
        finally:
            reinstall(None)
    if installation == "Settings":
        Settings.callback_manager = CallbackManager([handler])
        try:
            return _go(way_in, World(far)), False
        finally:
            Settings.callback_manager = kit.no_handlers()
    return _go(way_in, World(far, handler)), False


def _go(way_in: Way, world: World) -> str:
    try:
        made = way_in.run(world)
        if inspect.iscoroutine(made) or inspect.isawaitable(made):
            asyncio.run(_awaited(made))
    except Exception as error:  # noqa: BLE001 - what the caller sees is the question
        return type(error).__name__
    return "returns"


async def _awaited(made: Any) -> Any:
    return await made


def main() -> None:
    """Print the table."""
    logging.disable(logging.CRITICAL)
    print(
        "| way in | requests | entries | statuses |",
        " | ".join(f"after the limit, {name}" for name in INSTALLATIONS),
        "|",
    )
    print("|---|---|---|---|" + "---|" * len(INSTALLATIONS))
    names = sys.argv[1:]
    for way_in in WAYS:
        if way_in.lacks or (names and way_in.name not in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            seen = go(way_in, "track()", Path(folder) / "room.db", used_up=False)
            cells = []
            for number, installation in enumerate(INSTALLATIONS):
                after = go(way_in, installation, Path(folder) / f"{number}.db", used_up=True)
                cells.append(f"{after.sent}, {after.sees}")
        statuses = "+".join(sorted(set(seen.statuses)))
        print(f"| {way_in} | {seen.sent} | {seen.entries} | {statuses} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
