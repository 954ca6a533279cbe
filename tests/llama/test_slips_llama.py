"""Where money slips: what an adversarial review found, each as what should happen.

Every answer is 1,000 tokens in and 200 out of gpt-4o-mini: $0.00027, unless a test says otherwise.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
from contextlib import suppress
from typing import Any

import openai
import pytest
from llama_index.core import PromptTemplate, Settings, get_response_synthesizer
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM, ChatMessage, CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.schema import NodeWithScore, TextNode

from ai_budget_callbacks import Budget, BudgetExceeded, ConfigError, Price, track
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.llama_index import unmetered
from ai_budget_callbacks.usage.wire import read_usage
from tests.llama.kit import ASK, QUESTION, City, chat, claude, embedding, look_up, responses, script
from tests.support import llama_versions
from tests.support.audit import audit, read_back
from tests.support.llama_versions import LACKS_AGENTS, LACKS_NATIVE_CLAUDE, LACKS_RESPONSES, agents
from tests.support.provider import ClaudeReply

PAID = {"input_tokens": 1000, "output_tokens": 200}
ANSWER = Reply(text="The answer is four.", **PAID)
NODES = [NodeWithScore(node=TextNode(text="Two and two is four."), score=1.0)]
MINI = {"gpt-4o-mini": Price(input="0.15", output="0.60")}


def sdk(far):
    return openai.OpenAI(base_url=far.base_url, api_key="sk-loopback", max_retries=0)


def ask(client, prompt, model="gpt-4o-mini"):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])


class Sends(CustomLLM):
    """A decorated model that talks to the provider itself, after something of another model."""

    client: Any = None
    first: Any = None

    @property
    def metadata(self):
        return LLMMetadata(model_name="gpt-4o-mini")

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        self.first(prompt)
        answer = ask(self.client, prompt)
        return CompletionResponse(text=answer.choices[0].message.content, raw=answer)

    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


# -- two requests booked as one


def test_an_embedding_made_inside_a_models_call_is_a_request_of_its_own(serve, meter, ledger):
    """A semantic cache: the prompt is embedded, then the model is asked."""
    far = serve(lambda r: Reply(input_tokens=1000) if r.path.endswith("/embeddings") else ANSWER)
    own = meter(prices=MINI)
    with track(Budget(usd="0.50"), Budget(calls=9), meter=own):
        Sends(client=sdk(far), first=embedding(far).get_query_embedding).complete(QUESTION)
    books = audit(far, ledger, requests=2, entries=2, exact=False)
    assert sorted(row["model"] for row in books.entries) == ["gpt-4o-mini", "text-embedding-3-small"]


def test_a_model_that_asks_another_one_and_then_sends_itself_is_two_requests(serve, meter, ledger):
    """A guard or classifier first: what the outer one sent itself has its own usage, and must be booked."""
    far = serve(ANSWER)
    with track(Budget(usd="0.50"), Budget(calls=9), meter=meter(prices=MINI)):
        Sends(client=sdk(far), first=chat(far, model="gpt-4o").complete).complete(QUESTION)
    audit(far, ledger, requests=2, entries=2, exact=False)


def test_a_model_that_falls_back_to_its_own_request_after_a_refusal_inside_is_booked(serve, handler, meter, ledger):
    far = serve(ANSWER)
    guard = handler(Budget(calls=1))
    inner = chat(far, guard, model="gpt-4o")
    inner.complete("the one")

    def first(prompt):
        with suppress(BudgetExceeded):
            inner.complete(prompt)

    with pytest.raises(BudgetExceeded), track(Budget(calls=9), meter=meter(prices=MINI)) as run:
        Sends(client=sdk(far), first=first).complete(QUESTION)  # the block tells of the refusal that was swallowed
    assert len(far.requests) == 2
    assert run.summary().calls == 1
    audit(far, ledger, requests=2, entries=2, exact=False)


def test_a_prompt_that_looks_up_its_examples_does_not_hide_a_native_structured_call(serve, meter, ledger):
    """Dynamic few-shot prompts (`function_mappings`) embed the question while they are formatted."""
    llama_versions.needs(LACKS_NATIVE_CLAUDE)
    far = serve(
        lambda r: Reply(input_tokens=1000) if r.path.endswith("/embeddings") else Reply(text='{"name": "Bonn"}', **PAID)
    )
    embed = embedding(far)

    def examples(**kwargs):
        return str(len(embed.get_query_embedding("examples")))

    prompt = PromptTemplate("Like {examples}, name a city: {topic}", function_mappings={"examples": examples})
    with track(Budget(usd="0.50"), meter=meter()):
        claude(far).structured_predict(City, prompt, topic="a")
    sent = [request.path.rpartition("/")[2] for request in far.requests]
    assert sent.count("embeddings") == 1, f"formatting the prompt once more sent a request of our making: {sent}"
    books = audit(far, ledger, requests=2, entries=2, exact=False)
    assert "claude-sonnet-4-5" in {row["model"] for row in books.entries}


# -- not counted at all


def _named(name):
    class Made(LLM):
        client: Any = None

        @property
        def metadata(self):
            return LLMMetadata(model_name="gpt-4o-mini")

        @llm_chat_callback()
        def chat(self, messages, **kwargs):
            answer = ask(self.client, messages[0].content)
            message = ChatMessage(role="assistant", content=answer.choices[0].message.content)
            return ChatResponse(message=message, raw=answer)

        def complete(self, prompt, formatted=False, **kwargs):
            raise NotImplementedError

        stream_chat = stream_complete = achat = acomplete = astream_chat = astream_complete = complete

    Made.__name__ = name
    return Made


class CustomLLM_(LLM):  # noqa: N801 - see below
    client: Any = None

    @property
    def metadata(self):
        return LLMMetadata(model_name="gpt-4o-mini")

    def _chat(self, messages, **kwargs):
        answer = ask(self.client, messages[0].content)
        message = ChatMessage(role="assistant", content=answer.choices[0].message.content)
        return ChatResponse(message=message, raw=answer)

    # as `class CustomLLM(LLM): @llm_chat_callback() def chat(...)` at a module's top has it
    _chat.__qualname__ = "CustomLLM.chat"
    _chat.__name__ = "chat"
    chat = llm_chat_callback()(_chat)

    def complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError

    stream_chat = stream_complete = achat = acomplete = astream_chat = astream_complete = complete


def test_a_users_class_that_is_called_custom_llm_is_counted_and_refused(serve, meter, ledger):
    far = serve(ANSWER)
    model = CustomLLM_(client=sdk(far))
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter(prices=MINI)):
        model.chat(ASK)
        model.chat(ASK)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


# -- worst cases that are none


def test_the_models_own_max_tokens_which_llms_openai_sends_bounds_the_answer(serve, meter, ledger):
    """llms-openai 0.8 puts the instance's `max_tokens` over that of the call."""
    far = serve(Reply(text="x", input_tokens=10, output_tokens=5000))
    own = meter(reserve="worst_case")
    with suppress(BudgetExceeded), track(Budget(usd="0.001"), meter=own):
        chat(far, max_tokens=5000).chat(ASK, max_tokens=10)  # 5,000 x 0.60 per million is $0.003
    assert not far.requests, f"sent with max_tokens={far.requests[0].body['max_tokens']}, held for 10"


def test_what_stands_in_additional_kwargs_is_what_llms_openai_sends(serve, meter, ledger):
    far = serve(Reply(text="x", input_tokens=10, output_tokens=5000))
    own = meter(reserve="worst_case")
    with suppress(BudgetExceeded), track(Budget(usd="0.001"), meter=own):
        chat(far, additional_kwargs={"max_tokens": 5000}).chat(ASK, max_tokens=10)
    assert not far.requests, f"sent with max_tokens={far.requests[0].body['max_tokens']}, held for 10"


def test_the_choices_of_additional_kwargs_are_what_is_sent(serve, meter, ledger):
    far = serve(Reply(text="x", input_tokens=10, output_tokens=100))
    own = meter(reserve="worst_case")
    with suppress(BudgetExceeded), track(Budget(usd="0.0003"), meter=own):
        # 8 x 100 x 0.60 per million is $0.00048
        chat(far, additional_kwargs={"n": 8}, max_tokens=100).chat(ASK, n=1)
    assert not far.requests, f"sent with n={far.requests[0].body['n']}"


def test_the_model_of_additional_kwargs_is_the_one_that_is_asked(serve, meter, ledger):
    far = serve(Reply(text="x", input_tokens=10, output_tokens=1000))
    own = meter(reserve="worst_case")
    with suppress(BudgetExceeded), track(Budget(usd="0.002"), meter=own):
        # 1,000 of gpt-4o is $0.01, of gpt-4o-mini $0.0006
        chat(far, additional_kwargs={"model": "gpt-4o"}, max_tokens=1000).chat(ASK)
    assert not far.requests, f"{far.requests[0].body['model']} was sent for a hold of gpt-4o-mini"


def test_instructions_of_the_responses_api_are_part_of_the_worst_case(serve, meter, ledger):
    llama_versions.needs(LACKS_RESPONSES)
    far = serve(ANSWER)
    own = meter(reserve="worst_case")
    with suppress(BudgetExceeded), track(Budget(usd="0.005"), meter=own):
        # 100,000 bytes at 0.15 per million are $0.015
        responses(far, instructions="x" * 100_000, max_output_tokens=100).chat(ASK)
    assert not far.requests, "100 kB of instructions were sent and not held for"


def test_a_conversation_at_the_server_has_no_worst_case(serve, meter, ledger):
    """`track_previous_responses=True` has the server add all that was said before."""
    llama_versions.needs(LACKS_RESPONSES)
    far = serve(ANSWER)
    own = meter(reserve="worst_case")
    model = responses(far, track_previous_responses=True, max_output_tokens=100)
    with suppress(Exception), track(Budget(usd="0.50"), meter=own):
        model.chat(ASK)
        model.chat(ASK)
    assert len([r for r in far.requests if r.body.get("previous_response_id")]) == 0


def test_cache_idx_of_anthropic_asks_for_cache_writes(serve, meter, ledger):
    llama_versions.needs(llama_versions.LACKS_CACHE_IDX)
    far = serve(ClaudeReply(text="x", input_tokens=0, write_5m_tokens=40_000, output_tokens=10))
    own = meter(reserve="worst_case")
    text = [ChatMessage(role="user", content="x" * 40_000)]
    with suppress(BudgetExceeded), track(Budget(usd="0.135"), meter=own):
        # 40,000 x 3 is $0.12, x 3.75 is $0.15
        claude(far, cache_idx=-1, max_tokens=10).chat(text)
    assert "cache_control" not in str([r.body for r in far.requests]), "sent with cache_control, held without"


def test_a_stream_of_anthropic_with_cache_idx_and_silent_counters_is_not_booked_without_its_cache(serve, meter, ledger):
    llama_versions.needs(llama_versions.LACKS_CACHE_IDX)
    far = serve(
        ClaudeReply(text="x", input_tokens=100, write_5m_tokens=40_000, output_tokens=10, delta_output_only=True)
    )
    text = [ChatMessage(role="user", content="x " * 80_000)]
    with track(Budget(usd="5"), meter=meter()):
        list(claude(far, cache_idx=-1, max_tokens=10).stream_chat(text))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.booked_usd >= far.billed_usd, f"{books.booked_usd} of {far.billed_usd}, {books.statuses}"


class Cheap(CustomLLM):
    """Called like a cheap model, asks a dear one."""

    inner: Any = None

    @property
    def metadata(self):
        return LLMMetadata(model_name="gpt-4o-mini", num_output=100)

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=self.inner.complete(prompt).text)

    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


def test_a_dear_model_inside_a_cheap_one_is_held_for_as_what_it_is(serve, meter, ledger):
    far = serve(Reply(text="x", input_tokens=10, output_tokens=10_000))
    own = meter(reserve="worst_case", prices=MINI)
    with suppress(BudgetExceeded), track(Budget(usd="0.05"), meter=own):
        # 10,000 of gpt-4o are $0.10; all 16,384 of gpt-4o-mini $0.0098
        Cheap(inner=chat(far, model="gpt-4o", max_tokens=10_000)).complete(QUESTION, max_tokens=100)
    books = read_back(ledger)
    assert not far.requests, f"booked {books.booked_usd} on a worst-case budget of $0.05"


# -- usage


@pytest.mark.parametrize(
    "raw",
    [
        {  # llms-bedrock-converse puts these beside the answer
            "prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,
            "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
        },
        {  # the same, of a cached prompt
            "prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1700,
            "cache_read_input_tokens": 500, "cache_creation_input_tokens": 0,
        },
    ],
)  # fmt: skip
def test_openai_names_beside_anthropics_cache_counters_are_read(raw):
    usage = read_usage(raw)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) >= (1000, 200)


# -- gates that reach further than they should


def test_a_handler_of_one_model_does_not_spread_over_the_settings(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=2))
    mine = chat(far, gate)
    mine.complete(QUESTION)
    get_response_synthesizer(llm=mine).synthesize(QUESTION, NODES)  # its manager becomes the settings'
    other = chat(far)
    other.complete(QUESTION)  # of somebody else
    assert gate not in Settings.callback_manager.handlers
    audit(far, ledger, requests=3, entries=2, exact=False)


def test_a_closed_handler_of_one_model_stops_no_other(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=2))
    mine = chat(far, gate)
    mine.complete(QUESTION)
    get_response_synthesizer(llm=mine).synthesize(QUESTION, NODES)
    gate.close()
    chat(far).complete(QUESTION)
    assert len(far.requests) == 3


def test_a_new_handler_in_the_settings_takes_the_place_of_the_old_one(serve, handler, ledger):
    """A notebook: the budget is used up, the cell is run again with a larger one."""
    far = serve(ANSWER)
    Settings.callback_manager = CallbackManager([handler(Budget(calls=1))])
    Settings.llm = chat(far)
    Settings.llm.complete(QUESTION)
    Settings.callback_manager = CallbackManager([handler(Budget(calls=9))])
    Settings.llm.complete(QUESTION)
    assert len(far.requests) == 2


# -- runs


async def test_two_runs_of_an_agent_one_after_the_other_are_two_runs(serve, handler, ledger):
    llama_versions.needs(llama_versions.LACKS_RUN_END)
    llama_versions.needs(LACKS_AGENTS)
    far, gate = serve(script), handler(Budget(calls=2, per="run"))
    agent = agents.FunctionAgent(name="first", llm=chat(far, gate), tools=[look_up])
    await agent.run(QUESTION)
    await agent.run(QUESTION)
    audit(far, ledger, requests=4, entries=4, exact=False)


async def test_a_call_after_an_agents_run_is_not_the_agents(serve, handler, ledger):
    llama_versions.needs(llama_versions.LACKS_RUN_END)
    llama_versions.needs(LACKS_AGENTS)
    far, gate = serve(script), handler(Budget(usd="0.50"))
    agent = agents.FunctionAgent(name="first", llm=chat(far, gate), tools=[look_up])
    await agent.run(QUESTION)
    await chat(far, gate).acomplete(QUESTION)
    assert read_back(ledger).column("agent")[-1] is None


# -- what is left behind


def test_a_prompt_refused_by_a_closed_handler_is_left_as_it_was(serve, handler):
    far, gate = serve(ANSWER), handler(Budget(calls=1))
    prompt = PromptTemplate("Name a city: {topic}")
    model = claude(far, gate)
    gate.close()
    with pytest.raises(ConfigError):
        model.structured_predict(City, prompt, topic="a")
    assert "format_messages" not in vars(prompt)
    assert not unmetered._refused


def test_a_crossing_leaves_nothing_at_the_handlers_after_it(serve, handler, ledger):
    far = serve(ANSWER)
    one, two = handler(Budget(usd="0.0001", at_limit="raise"), reserve="none"), handler(Budget(usd="1"))
    with pytest.raises(BudgetExceeded):
        chat(far, one, two).complete(QUESTION)
    assert not two._reports
    assert not two._ongoing


def test_streams_collected_in_the_middle_of_bookkeeping_are_booked(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(usd="5"))
    model, lazy = claude(far, gate), chat(far, gate)
    before = gc.get_threshold()
    gc.set_threshold(50, 2, 2)
    try:
        for _ in range(30):
            for one in (model, lazy):
                stream = one.stream_chat(ASK)
                loop = [stream]
                loop.append(loop)
                del stream, loop
            lazy.complete(QUESTION)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    audit(far, ledger, requests=60, entries=60, exact=False)


# -- copies and processes


def test_a_deep_copy_of_a_model_keeps_its_handler(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=1))
    twin = copy.deepcopy(chat(far, gate))
    twin.complete(QUESTION)
    with pytest.raises(BudgetExceeded):
        twin.complete(QUESTION)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")


def test_a_pickled_model_does_not_lose_its_handler_in_silence(serve, handler, ledger, caplog):
    """`IngestionPipeline.run(num_workers=…)` pickles its embedding model into other processes."""
    far, gate = serve(Reply(input_tokens=5)), handler(Budget(calls=1))
    twin = pickle.loads(pickle.dumps(embedding(far, gate)))  # noqa: S301
    twin.get_text_embedding("one")
    assert read_back(ledger).entries or "BudgetCallbackHandler" in caplog.text


# -- streams


def test_a_stream_without_a_chunk_is_booked_at_its_hold(serve, handler, ledger):
    far = serve(Reply(text="", input_tokens=1000, output_tokens=200, usage="omit"))
    list(chat(far, handler(Budget(usd="0.50"))).stream_chat(ASK))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    assert books.booked_usd >= far.billed_usd


async def test_parallel_agents_and_tools_are_as_many_as_their_requests(serve, meter, ledger):
    llama_versions.needs(LACKS_AGENTS)
    far = serve(script)
    with track(Budget(calls=40), meter=meter()):
        team = [agents.FunctionAgent(name=f"a{i}", llm=chat(far), tools=[look_up]) for i in range(4)]
        await asyncio.gather(*(agent.run(QUESTION) for agent in team))
    audit(far, ledger, requests=8, entries=8, exact=True)
