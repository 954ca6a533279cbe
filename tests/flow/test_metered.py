"""Embeddings and rerankers, which LangChain says nothing of: counted by their wrappers, once, and refused before sending."""

from __future__ import annotations

import asyncio
import threading
import uuid
from decimal import Decimal

import openai
import pytest
from langchain.agents import create_agent
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings

from ai_budget_callbacks import (
    Budget,
    BudgetExceeded,
    ConfigError,
    Meter,
    Price,
    PriceUnknown,
    UsageMissing,
    install,
    track,
)
from ai_budget_callbacks.demo.loopback import Reply, ToolCall
from ai_budget_callbacks.events import CallReserved
from ai_budget_callbacks.langchain import BudgetCallbackHandler, MeteredEmbeddings, MeteredReranker
from ai_budget_callbacks.scope import installed, reinstall
from tests.flow.kit import PICO, audit, chat, read_back
from tests.support.versions import SAYS_AGENT_BESIDE_METADATA, SAYS_TOOL_CALL_ID

TOLD = Reply(input_tokens=1000)  # $0.00002 at text-embedding-3-small: $0.02 per million
UNIT = Decimal("0.00002")
TEXTS = ["one fact", "two facts", "three facts", "four facts", "five facts"]
RERANK = {"reranker/Reverse": Price(request="0.002")}
RERANK_FEE = Decimal("0.002")


def _config(*callbacks, **more):
    return {"callbacks": list(callbacks), **more}


def openai_embeddings(far, **options):
    settings = {"model": "text-embedding-3-small", "max_retries": 0, "timeout": 20, "check_embedding_ctx_length": False}
    return OpenAIEmbeddings(base_url=far.base_url, api_key="sk-loopback", **(settings | options))


class Lengths(Embeddings):
    """Embeddings of a model that runs nowhere: the length of each text. Counts its uses."""

    model = "my-embed"
    uses = 0

    def embed_documents(self, texts):
        self.uses += 1
        return [[float(len(text)), 1.0] for text in texts]

    def embed_query(self, text):
        return self.embed_documents([text])[0]


class Reverse(BaseDocumentCompressor):
    """A reranker that turns the order round."""

    fails: bool = False
    uses: list = []

    def compress_documents(self, documents, query, callbacks=None):
        self.uses.append(query)
        if self.fails:
            raise RuntimeError("the reranker failed")
        return list(documents)[::-1]


DOCUMENTS = [Document(page_content=text) for text in TEXTS]


async def _documents(embeddings, way, texts=TEXTS):
    return await embeddings.aembed_documents(texts) if way == "async" else embeddings.embed_documents(texts)


async def _query(embeddings, way, text="one fact"):
    return await embeddings.aembed_query(text) if way == "async" else embeddings.embed_query(text)


WAYS = pytest.mark.parametrize("way", ["sync", "async"])


@pytest.fixture
def put_back():
    """What is installed, and the default meter, as they were."""
    before = installed()
    yield
    reinstall(before)


# -- each request is one entry with the usage the provider reported


@WAYS
async def test_documents_in_chunks_are_one_entry_for_each_request(serve, handler, ledger, way):
    far = serve(lambda request: Reply(input_tokens=100 * len(request.body["input"])))
    budget = handler(Budget(usd="1"), Budget(calls=10), Budget(tokens=10_000))
    embeddings = MeteredEmbeddings(openai_embeddings(far, chunk_size=2), budget)
    vectors = await _documents(embeddings, way)
    assert [len(vector) for vector in vectors] == [8] * 5
    assert vectors == openai_embeddings(serve(), chunk_size=2).embed_documents(TEXTS), "the vectors are the model's own"
    books = audit(far, ledger, requests=3, entries=3, usd="0.00001")  # 500 tokens x $0.02 per million
    assert [row["usage"] for row in books.entries] == [
        {"input_uncached": 200}, {"input_uncached": 200}, {"input_uncached": 100}]  # fmt: skip
    assert books.statuses == ["priced"] * 3
    assert (books.spent("calls"), books.spent("tokens")) == ([3], [500])
    found = {(row["kind"], row["provider"], row["model"], row["framework"]) for row in books.entries}
    assert found == {("call", "openai", "text-embedding-3-small", "langchain")}


@WAYS
async def test_a_query_is_one_entry(serve, handler, ledger, way):
    far = serve(TOLD)
    await _query(MeteredEmbeddings(openai_embeddings(far), handler(Budget(usd="1"))), way)
    books = audit(far, ledger, requests=1, entries=1, usd="0.00002")
    assert books.one()["run_id"] == books.one()["call_id"], "outside of any chain it is its own run"


def test_token_ids_are_counted_too(serve, handler, ledger):
    """By default LangChain sends token ids; here they come without tiktoken, which would be downloaded."""
    far, events = serve(TOLD), []
    embeddings = MeteredEmbeddings(openai_embeddings(far), handler(Budget(usd="1"), listeners=[events.append]))
    embeddings.embeddings.client.create(input=[[1, 2, 3], [4, 5]], model="text-embedding-3-small")
    audit(far, ledger, requests=1, entries=1, usd="0.00002")
    assert [event.held_usd for event in events if isinstance(event, CallReserved)] == [6 * UNIT / 1000]


@WAYS
async def test_without_usage_it_is_counted_from_the_texts_and_says_so(serve, handler, ledger, way):
    far = serve(Reply(usage="omit", input_tokens=100))
    budget = handler(Budget(usd="1"))
    await _documents(MeteredEmbeddings(openai_embeddings(far), budget), way)
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    row = books.one()
    assert row["status"] == "estimated", f"an answer without usage is {row['status']}"
    assert row["usage"] == {"input_uncached": -(-sum(map(len, TEXTS)) * 2 // 5)}, "2.5 bytes a token"
    assert row["booked_pico"] == row["usage"]["input_uncached"] * 20_000
    assert budget.summary().estimated_usd == row["booked_pico"] * PICO


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": None, "total_tokens": None}, {"prompt_tokens": 0}])
def test_a_usage_that_says_nothing_is_not_free(serve, handler, ledger, usage):
    far = serve(Reply(usage=usage))
    MeteredEmbeddings(openai_embeddings(far), handler(Budget(usd="1"))).embed_documents(TEXTS)
    assert audit(far, ledger, requests=1, entries=1, exact=False).statuses == ["estimated"]


def test_a_missing_usage_can_be_insisted_on(serve, handler, ledger):
    far = serve(Reply(usage="omit"))
    budget = handler(Budget(usd="1"), on_missing_usage="raise")
    with pytest.raises(UsageMissing) as caught:
        MeteredEmbeddings(openai_embeddings(far), budget).embed_documents(TEXTS)
    assert len(caught.value.response.data) == 5, "what was paid for is on the exception"
    audit(far, ledger, requests=1, entries=1, exact=False)


# -- how it can fail


@WAYS
async def test_an_http_error_costs_nothing(serve, handler, ledger, way):
    far = serve([TOLD, Reply(status=500)])
    budget = handler(Budget(usd="1"))
    with pytest.raises(openai.InternalServerError):
        await _documents(MeteredEmbeddings(openai_embeddings(far, chunk_size=3), budget), way)
    audit(far, ledger, requests=2, entries=1, usd="0.00002")


@WAYS
async def test_a_timeout_is_booked_at_its_hold(serve, handler, ledger, way):
    far, events = serve(Reply(input_tokens=10, delay_s=2)), []
    budget = handler(Budget(usd="1"), reserve="worst_case", listeners=[events.append])
    with pytest.raises(openai.APITimeoutError):
        await _documents(MeteredEmbeddings(openai_embeddings(far, timeout=0.3), budget), way)
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert (books.statuses, books.one()["cost_pico"]) == (["unknown"], None)
    (held,) = [event.held_usd for event in events if isinstance(event, CallReserved)]
    assert books.booked_usd == held >= far.billed_usd > 0


async def test_a_cancelled_request_is_booked_at_its_hold(serve, handler, ledger):
    far = serve(Reply(input_tokens=10, delay_s=5))
    task = asyncio.create_task(MeteredEmbeddings(openai_embeddings(far), handler(Budget(usd="1"))).aembed_query("fact"))
    while not far.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    books = read_back(ledger)
    assert (books.statuses, books.holds) == (["unknown"], [])
    assert books.booked_usd > 0


def test_a_refused_connection_costs_nothing(serve, handler, ledger):
    far = serve(TOLD)
    embeddings = MeteredEmbeddings(openai_embeddings(far), handler(Budget(usd="1")))
    far.stop()
    with pytest.raises(openai.APIConnectionError):
        embeddings.embed_query("fact")
    audit(far, ledger, requests=0, entries=0, usd="0")


# -- the limit


@pytest.mark.parametrize("reserve", ["expected", "worst_case", "none", "0.00001"])
@WAYS
async def test_on_a_used_up_budget_nothing_is_sent(serve, handler, ledger, way, reserve):
    far = serve(TOLD)
    budget = handler(Budget(usd="0.00004"), reserve=reserve)
    embeddings = MeteredEmbeddings(openai_embeddings(far), budget)
    for _ in range(2):
        await _query(embeddings, way)
    for use in (_query, _documents):
        with pytest.raises(BudgetExceeded):
            await use(embeddings, way)
    assert budget.exceeded
    audit(far, ledger, requests=2, entries=2, usd="0.00004")


def test_a_call_budget_stops_between_chunks(serve, handler, ledger):
    far = serve(TOLD)
    with pytest.raises(BudgetExceeded):
        MeteredEmbeddings(openai_embeddings(far, chunk_size=1), handler(Budget(calls=2))).embed_documents(TEXTS)
    audit(far, ledger, requests=2, entries=2, usd="0.00004")


def test_threads_do_not_pass_the_limit_together(serve, handler, ledger):
    far = serve(Reply(input_tokens=1000, delay_s=0.2))
    embeddings = MeteredEmbeddings(openai_embeddings(far), handler(Budget(calls=2)))
    refused = []

    def work():
        try:
            embeddings.embed_query("fact")
        except BudgetExceeded as error:
            refused.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 6
    audit(far, ledger, requests=2, entries=2, usd="0.00004")


def test_a_crossing_that_raises_carries_the_answer(serve, handler, ledger):
    far = serve(TOLD)
    budget = handler(Budget(usd="0.00001", at_limit="raise"), reserve="none")
    with pytest.raises(BudgetExceeded) as caught:
        MeteredEmbeddings(openai_embeddings(far), budget).embed_documents(TEXTS)
    assert len(caught.value.response.data) == 5
    assert budget.exceeded
    audit(far, ledger, requests=1, entries=1, usd="0.00002")


def test_embeddings_without_a_price_are_refused_before_sending(serve, handler, ledger):
    far = serve(TOLD)
    with pytest.raises(PriceUnknown):
        MeteredEmbeddings(openai_embeddings(far, model="my-embed"), handler(Budget(usd="1"))).embed_query("fact")
    assert (len(far.requests), read_back(ledger).entries) == (0, [])


# -- who counts it


def test_the_handler_of_the_chain_counts_it(serve, handler, ledger):
    far, run_id = serve(TOLD), uuid.uuid4()
    embeddings = MeteredEmbeddings(openai_embeddings(far))
    budget = handler(Budget(calls=2), Budget(calls=9, by="node", name="by node"))
    step = RunnableLambda(embeddings.embed_query).with_config(run_name="embed")
    chain = RunnableLambda(lambda text: text) | step
    for _ in range(2):
        chain.invoke("fact", config=_config(budget, run_id=run_id, metadata={"user_id": "alice", "job": "nightly"}))
    with pytest.raises(BudgetExceeded):
        chain.invoke("fact", config=_config(budget))
    books = audit(far, ledger, requests=2, entries=2, usd="0.00004")
    for row in books.entries:
        assert {name: row[name] for name in ("run_id", "user", "node")} == {
            "run_id": str(run_id), "user": "alice", "node": "embed"}  # fmt: skip
        assert row["metadata"] == {"job": "nightly"}
    assert budget.summary().calls == 2


async def test_async_fan_out_in_a_chain(serve, handler, ledger):
    far = serve(TOLD)
    embeddings = MeteredEmbeddings(openai_embeddings(far))

    async def three(text):
        return await asyncio.gather(*(embeddings.aembed_query(text) for _ in range(5)), return_exceptions=True)

    found = await RunnableLambda(three).ainvoke("fact", config=_config(handler(Budget(calls=3))))
    assert sum(isinstance(item, BudgetExceeded) for item in found) == 2
    audit(far, ledger, requests=3, entries=3, usd="0.00006")


def test_in_a_tool_of_an_agent_it_belongs_to_the_tool(serve, handler, ledger):
    def script(request):
        if "input" in request.body:
            return TOLD
        called = any(message.get("role") == "tool" for message in request.body["messages"])
        calls = () if called else (ToolCall("recall", {"topic": "sums"}, id="call_7"),)
        return Reply(text="Four." if called else "", tool_calls=calls, input_tokens=1000, output_tokens=200)

    far = serve(script)
    embeddings = MeteredEmbeddings(openai_embeddings(far))

    @tool
    def recall(topic: str) -> str:
        """Remember."""
        return str(len(embeddings.embed_query(topic)))

    agent = create_agent(chat(far), [recall], name="boss")
    budget = handler(Budget(usd="1"))
    agent.invoke({"messages": [("human", "hi")]}, config=_config(budget, metadata={"user_id": "alice"}))
    books = audit(far, ledger, requests=3, entries=3, usd="0.00056")  # 2 x 0.00027 + 0.00002
    row = books.entries[1]
    assert {name: row[name] for name in ("user", "agent", "node", "tool", "tool_call_id", "model")} == {
        "user": "alice", "agent": "boss" if SAYS_AGENT_BESIDE_METADATA else None, "node": "tools",
        "tool": "recall", "tool_call_id": "call_7" if SAYS_TOOL_CALL_ID else None, "model": "text-embedding-3-small",
    }  # fmt: skip
    assert len({row["run_id"] for row in books.entries}) == 1


def test_under_a_block(serve, meter, ledger):
    far = serve(TOLD)
    embeddings = MeteredEmbeddings(openai_embeddings(far))
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter(), user="bob") as run:
        embeddings.embed_query("fact")
        embeddings.embed_query("fact")
    books = audit(far, ledger, requests=1, entries=1, usd="0.00002")
    assert (books.one()["user"], books.one()["run_id"]) == ("bob", run.id)


def test_under_install(serve, meter, ledger, put_back):
    far = serve(TOLD)
    install(meter([Budget(calls=1)]))
    embeddings = MeteredEmbeddings(openai_embeddings(far))
    thread = threading.Thread(target=embeddings.embed_query, args=("fact",))
    thread.start()
    thread.join()
    with pytest.raises(BudgetExceeded):
        embeddings.embed_query("fact")
    audit(far, ledger, requests=1, entries=1, usd="0.00002")


def test_counted_once_by_whatever_counts_it(serve, handler, meter, ledger, put_back):
    """A handler in the config and in the wrapper, its meter given, a block of that meter, and the same installed."""
    far = serve(TOLD)
    shared = meter([Budget(calls=9)])
    budget = BudgetCallbackHandler(shared, Budget(calls=9))
    other = handler(Budget(calls=9))
    embeddings = MeteredEmbeddings(openai_embeddings(far), budget, other, shared)
    install(shared)
    with track(Budget(calls=9), meter=shared) as run:
        RunnableLambda(embeddings.embed_query).invoke("fact", config=_config(budget))
    books = audit(far, ledger, requests=1, entries=1, usd="0.00002")
    assert books.spent("calls") == [1, 1, 1, 1], f"meter, handler, other handler, block: {books.spent('calls')}"
    assert [item.summary().calls for item in (run, budget, other, shared)] == [1, 1, 1, 1]


def test_what_one_budget_refuses_is_held_on_no_other(serve, handler, ledger):
    far = serve(TOLD)
    wide, tight = handler(Budget(calls=5)), handler(Budget(calls=1))
    embeddings = MeteredEmbeddings(openai_embeddings(far), wide, tight)
    embeddings.embed_query("fact")
    with pytest.raises(BudgetExceeded):
        embeddings.embed_query("fact")
    books = audit(far, ledger, requests=1, entries=1, usd="0.00002")
    assert books.spent("calls") == [1, 1]
    assert (tight.exceeded, wide.exceeded) == (True, False)


def test_where_nobody_counts_the_default_meter_does(serve, tmp_path, put_back):
    far = serve(TOLD)
    MeteredEmbeddings(openai_embeddings(far)).embed_query("fact")
    audit(far, tmp_path / "default.db", requests=1, entries=1, usd="0.00002")


def test_a_vector_store_in_a_chain(serve, handler, ledger):
    """Filled in one chain, asked in another; an empty one is asked, because comparing vectors needs numpy."""
    far = serve(TOLD)
    embeddings = MeteredEmbeddings(openai_embeddings(far, chunk_size=3))
    budget = handler(Budget(calls=3))
    store = InMemoryVectorStore(embeddings)
    assert len(RunnableLambda(store.add_texts).invoke(TEXTS, config=_config(budget))) == 5
    assert len(store.store) == 5
    look = RunnableLambda(lambda text: text) | InMemoryVectorStore(embeddings).as_retriever()
    assert look.invoke("one fact", config=_config(budget)) == []
    with pytest.raises(BudgetExceeded):
        look.invoke("one fact", config=_config(budget))
    audit(far, ledger, requests=3, entries=3, usd="0.00006")


@WAYS
async def test_a_retriever_by_itself_tells_nobody_what_it_is_in(serve, handler, ledger, tmp_path, put_back, way):
    """LangChain sets no context in a retriever (1.8.3): the wrapper is given the handler; else the default counts it."""
    far = serve(TOLD)
    budget = handler(Budget(calls=1))
    store = InMemoryVectorStore(MeteredEmbeddings(openai_embeddings(far), budget))
    ask = store.as_retriever()
    await (ask.ainvoke("fact", config=_config(budget)) if way == "async" else _now(ask.invoke("fact", _config(budget))))
    with pytest.raises(BudgetExceeded):
        ask.invoke("fact", config=_config(budget))
    audit(far, ledger, requests=1, entries=1, usd="0.00002")
    InMemoryVectorStore(MeteredEmbeddings(openai_embeddings(far))).as_retriever().invoke("fact", _config(budget))
    assert len(read_back(tmp_path / "default.db").entries) == 1, "a request that no ledger knows"


async def _now(value):
    return value


def test_a_closed_handler_lets_nothing_through(serve, handler, ledger):
    far = serve(TOLD)
    budget = handler(Budget(usd="1"))
    embeddings = MeteredEmbeddings(openai_embeddings(far), budget)
    budget.close()
    with pytest.raises(ConfigError, match="closed"):
        embeddings.embed_query("fact")
    assert len(far.requests) == 0


# -- the object that was given


def test_the_given_object_is_not_changed(serve, handler, ledger):
    far = serve(TOLD)
    own = openai_embeddings(far)
    clients = own.client, own.async_client
    metered = MeteredEmbeddings(own, handler(Budget(calls=1)))
    metered.embed_query("fact")
    assert (own.client, own.async_client) == clients
    for _ in range(2):
        own.embed_query("fact")  # the caller's own, counted by nobody
    assert (len(far.requests), len(read_back(ledger).entries)) == (3, 1)
    assert metered.embeddings.client.with_raw_response is not None, "everything else is the client's own"


def test_wrapped_twice_is_counted_once_for_each_wrapper_and_never_less(serve, handler, ledger):
    far = serve(TOLD)
    budget = handler(Budget(usd="1"))
    MeteredEmbeddings(
        MeteredEmbeddings(openai_embeddings(far), budget), budget, model="text-embedding-3-small", provider="openai"
    ).embed_query("fact")
    books = read_back(ledger)
    assert len(far.requests) == 1
    assert books.booked_usd >= far.billed_usd


def test_a_class_of_ones_own_derived_from_an_integration_keeps_its_provider(serve, handler, ledger):
    class Ours(OpenAIEmbeddings):
        """As in an application."""

    far = serve(TOLD)
    ours = Ours(
        model="text-embedding-3-small", base_url=far.base_url, api_key="sk", check_embedding_ctx_length=False
    )  # fmt: skip
    MeteredEmbeddings(ours, handler(Budget(usd="1"))).embed_query("fact")
    assert audit(far, ledger, requests=1, entries=1, usd="0.00002").one()["provider"] == "openai"


@pytest.mark.parametrize("to", ["text", 7, Budget(usd="1")])
def test_what_is_no_counter_is_refused(to):
    with pytest.raises(ConfigError, match="is expected"):
        MeteredEmbeddings(Lengths(), to)


def test_a_model_without_a_name_is_refused():
    class Nameless(Lengths):
        model = None

    with pytest.raises(ConfigError, match="does not say its model"):
        MeteredEmbeddings(Nameless())


# -- any other class


@WAYS
async def test_a_class_that_reports_nothing_is_counted_from_the_texts(handler, ledger, way):
    own = Lengths()
    budget = handler(Budget(usd="1"), prices={"my-embed": Price(input="10")})
    embeddings = MeteredEmbeddings(own, budget)
    assert await _documents(embeddings, way) == [[float(len(text)), 1.0] for text in TEXTS]
    await _query(embeddings, way, "x" * 100)
    books = read_back(ledger)
    tokens = [-(-sum(map(len, TEXTS)) * 2 // 5), 40]
    assert books.statuses == ["estimated"] * 2
    assert [row["usage"] for row in books.entries] == [{"input_uncached": count} for count in tokens]
    assert [row["booked_pico"] for row in books.entries] == [count * 10**7 for count in tokens]
    assert all("counted from the texts" in row["reason"] for row in books.entries)
    assert own.uses == 2


def test_a_class_that_reports_nothing_is_refused_on_a_used_up_budget(handler, ledger):
    own = Lengths()
    budget = handler(Budget(calls=1), prices={"my-embed": Price(input="10")})
    embeddings = MeteredEmbeddings(own, budget)
    embeddings.embed_query("fact")
    with pytest.raises(BudgetExceeded):
        embeddings.embed_query("fact")
    assert (own.uses, len(read_back(ledger).entries)) == (1, 1)


def test_declared_free_is_free(handler, ledger):
    budget = handler(Budget(usd="0.000001"), prices={"my-embed": "free"})
    embeddings = MeteredEmbeddings(Lengths(), budget)
    for _ in range(3):
        embeddings.embed_documents(TEXTS)
    books = read_back(ledger)
    assert books.statuses == ["free"] * 3
    assert (books.booked_usd, books.spent()) == (0, []), "a free model touches no USD balance"


def test_without_a_price_a_class_is_refused(handler, ledger):
    own = Lengths()
    with pytest.raises(PriceUnknown):
        MeteredEmbeddings(own, handler(Budget(usd="1"))).embed_query("fact")
    assert own.uses == 0


def test_a_crossing_of_a_class_that_reports_nothing_carries_its_vectors(handler, ledger):
    budget = handler(
        Budget(usd="0.000001", at_limit="raise"), prices={"my-embed": Price(input="1000000")}, reserve="none"
    )
    with pytest.raises(BudgetExceeded) as caught:
        MeteredEmbeddings(Lengths(), budget).embed_documents(TEXTS)
    assert caught.value.response == Lengths().embed_documents(TEXTS), "what was paid for was lost"


def test_a_class_that_fails_is_booked_at_its_hold(handler, ledger):
    class Broken(Lengths):
        def embed_documents(self, texts):
            raise RuntimeError("the model failed")

    budget = handler(Budget(usd="1"), prices={"my-embed": Price(input="10")})
    with pytest.raises(RuntimeError, match="the model failed"):
        MeteredEmbeddings(Broken(), budget).embed_query("x" * 100)
    books = read_back(ledger)
    assert (books.statuses, books.booked_usd) == (["unknown"], Decimal("0.0004"))


# -- rerankers


@WAYS
async def test_a_reranker_costs_its_fee(handler, ledger, way):
    budget, own = handler(Budget(usd="0.0045"), Budget(calls=9), prices=RERANK), Reverse(uses=[])
    reranker = MeteredReranker(own, budget)

    async def rerank(query):
        if way == "async":
            return await reranker.acompress_documents(DOCUMENTS, query)
        return reranker.compress_documents(DOCUMENTS, query)

    for _ in range(2):
        assert await rerank("q") == DOCUMENTS[::-1]
    with pytest.raises(BudgetExceeded):
        await rerank("q")
    books = read_back(ledger)
    assert [(row["kind"], row["provider"], row["model"], row["cost_usd"]) for row in books.entries] == [
        ("charge", "reranker", "Reverse", "0.002")] * 2  # fmt: skip
    assert (books.spent(), books.spent("calls"), own.uses) == ([2 * RERANK_FEE], [], ["q", "q"])


@WAYS
async def test_a_reranker_that_fails_is_booked_at_its_fee(handler, ledger, way):
    reranker = MeteredReranker(Reverse(fails=True), handler(Budget(usd="1"), prices=RERANK))
    with pytest.raises(RuntimeError, match="the reranker failed"):
        await (
            reranker.acompress_documents(DOCUMENTS, "q")
            if way == "async"
            else _now(reranker.compress_documents(DOCUMENTS, "q"))
        )
    books = read_back(ledger)
    assert (books.statuses, books.booked_usd) == (["unknown"], RERANK_FEE)


class Found(BaseRetriever):
    """A retriever that reranks, and hands its callbacks on, as LangChain's own does."""

    reranker: MeteredReranker

    def _get_relevant_documents(self, query, *, run_manager):
        return self.reranker.compress_documents(DOCUMENTS, query, callbacks=run_manager.get_child())

    async def _aget_relevant_documents(self, query, *, run_manager):
        return await self.reranker.acompress_documents(DOCUMENTS, query, callbacks=run_manager.get_child())


@WAYS
async def test_the_callbacks_a_reranker_is_handed_count_it(handler, ledger, way):
    budget = handler(Budget(usd="0.003"), prices=RERANK)
    found, run_id = Found(reranker=MeteredReranker(Reverse(), name="Reverse")), uuid.uuid4()
    config = _config(budget, metadata={"user_id": "alice"})
    await (
        found.ainvoke("q", config, run_id=run_id) if way == "async" else _now(found.invoke("q", config, run_id=run_id))
    )
    with pytest.raises(BudgetExceeded):
        found.invoke("q", config)
    row = read_back(ledger).one()
    assert (row["run_id"], row["user"], row["cost_usd"]) == (str(run_id), "alice", "0.002")


def test_in_a_chain_the_chains_handler_counts_it(handler, ledger):
    reranker = MeteredReranker(Reverse())
    chain = RunnableLambda(lambda query: reranker.compress_documents(DOCUMENTS, query))
    chain.invoke("q", config=_config(handler(Budget(usd="1"), prices=RERANK)))
    assert read_back(ledger).spent() == [RERANK_FEE]


def test_under_a_block_the_blocks_meter_counts_it(meter, ledger):
    with track(Budget(usd="1"), meter=meter(prices=RERANK)) as run:
        MeteredReranker(Reverse()).compress_documents(DOCUMENTS, "q")
    assert (run.summary().cost_usd, read_back(ledger).one()["run_id"]) == (RERANK_FEE, run.id)


def test_a_reranker_that_nobody_has_a_price_for_is_refused(handler, ledger, put_back):
    own = Reverse(uses=[])
    for to in ((), (handler(Budget(usd="1")),)):
        with pytest.raises(ConfigError, match="reranker/Reverse"):
            MeteredReranker(own, *to).compress_documents(DOCUMENTS, "q")
    assert (own.uses, read_back(ledger).entries) == ([], [])


def test_a_crossing_carries_the_documents(handler, ledger):
    budget = handler(Budget(usd="0.001", at_limit="raise"), prices=RERANK, reserve="none")
    with pytest.raises(BudgetExceeded) as caught:
        MeteredReranker(Reverse(), budget).compress_documents(DOCUMENTS, "q")
    assert caught.value.response == DOCUMENTS[::-1]
    assert read_back(ledger).spent() == [RERANK_FEE]


def test_the_handler_of_a_wrapper_is_not_thought_unattached(handler, ledger, caplog):
    budget = handler(Budget(usd="1"), prices=RERANK)
    MeteredReranker(Reverse(), budget).compress_documents(DOCUMENTS, "q")
    budget.summary()
    assert not [record for record in caplog.records if "has seen no LangChain event" in record.getMessage()]


def test_meters_too_can_be_given(serve, tmp_path, ledger):
    far, counted = serve(TOLD), Meter([Budget(usd="1")], ledger=ledger, prices=RERANK)
    MeteredEmbeddings(openai_embeddings(far), counted).embed_query("fact")
    MeteredReranker(Reverse(), counted).compress_documents(DOCUMENTS, "q")
    assert counted.summary().cost_usd == UNIT + RERANK_FEE
    counted.close()
    assert not (tmp_path / "default.db").exists(), "the default meter is for what nobody counts"
