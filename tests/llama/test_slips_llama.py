"""Where money slips: what an adversarial review found, each as what should happen.

Every answer is 1,000 tokens in and 200 out of gpt-4o-mini: $0.00027, unless a test says otherwise.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import pickle
import sys
import threading
from contextlib import suppress
from decimal import Decimal
from typing import Any

import openai
import pytest
from llama_index.core import PromptTemplate, Settings, get_response_synthesizer
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM, ChatMessage, CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.schema import NodeWithScore, TextNode

from ai_budget_callbacks import Budget, BudgetExceeded, ConfigError, Price, UsageMissing, register_wrapper, track
from ai_budget_callbacks.demo.loopback import Reply
from ai_budget_callbacks.llama_index import unmetered
from ai_budget_callbacks.marks import WRAPPERS, leave_mark, take_mark
from ai_budget_callbacks.usage.wire import read_usage
from tests.llama.kit import (
    ASK,
    QUESTION,
    City,
    chat,
    claude,
    embedding,
    index_of,
    like,
    look_up,
    no_handlers,
    responses,
    script,
)
from tests.llama.test_mixed import OverLangChain, _langchain
from tests.support.audit import audit, read_back
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


def looking_up(far):
    """A dynamic few-shot prompt: it embeds the question while it is formatted."""
    embed = embedding(far)

    def examples(**kwargs):
        return str(len(embed.get_query_embedding("examples")))

    return PromptTemplate("Like {examples}, name a city: {topic}", function_mappings={"examples": examples})


def city_or_vector(request):
    if request.path.endswith("/embeddings"):
        return Reply(input_tokens=1000)
    return Reply(text='{"name": "Bonn"}', **PAID)


def test_an_embedding_inside_a_native_structured_call_does_not_hide_it(serve, meter, ledger):
    far = serve(city_or_vector)
    with track(Budget(usd="0.50"), meter=meter()):
        claude(far).structured_predict(City, looking_up(far), topic="a")
    assert "claude-sonnet-4-5" in {row["model"] for row in read_back(ledger).entries}


def test_a_prompt_is_formatted_once(serve, meter, ledger):
    """Formatting it to see its size must not send what it sends."""
    far = serve(city_or_vector)
    with track(Budget(usd="0.50"), meter=meter()):
        claude(far).structured_predict(City, looking_up(far), topic="a")
    assert sum(request.path.endswith("/embeddings") for request in far.requests) == 1


# -- not counted at all


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
    far = serve(ANSWER)
    own = meter(reserve="worst_case")
    with suppress(BudgetExceeded), track(Budget(usd="0.001"), meter=own):
        # 100,000 bytes are 12,500 tokens at 0.15 per million, $0.001875; without them the call would hold $0.00014
        responses(far, instructions="x" * 100_000, max_output_tokens=100).chat(ASK)
    assert not far.requests, "100 kB of instructions were sent and not held for"


def test_a_conversation_at_the_server_has_no_worst_case(serve, meter, ledger):
    """`track_previous_responses=True` has the server add all that was said before."""
    far = serve(ANSWER)
    own = meter(reserve="worst_case")
    model = responses(far, track_previous_responses=True, max_output_tokens=100)
    with suppress(Exception), track(Budget(usd="0.50"), meter=own):
        model.chat(ASK)
        model.chat(ASK)
    assert len([r for r in far.requests if r.body.get("previous_response_id")]) == 0


def test_cache_idx_of_anthropic_asks_for_cache_writes(serve, meter, ledger):
    far = serve(ClaudeReply(text="x", input_tokens=0, write_5m_tokens=40_000, output_tokens=10))
    own = meter(reserve="worst_case")
    text = [ChatMessage(role="user", content="x" * 40_000)]
    with suppress(BudgetExceeded), track(Budget(usd="0.135"), meter=own):
        # 40,000 x 3 is $0.12, x 3.75 is $0.15
        claude(far, cache_idx=-1, max_tokens=10).chat(text)
    assert "cache_control" not in str([r.body for r in far.requests]), "sent with cache_control, held without"


def test_a_stream_of_anthropic_with_cache_idx_and_silent_counters_is_not_booked_without_its_cache(serve, meter, ledger):
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
    far, gate = serve(script), handler(Budget(calls=2, per="run"))
    agent = FunctionAgent(name="first", llm=chat(far, gate), tools=[look_up])
    await agent.run(QUESTION)
    await agent.run(QUESTION)
    audit(far, ledger, requests=4, entries=4, exact=False)


async def test_a_call_after_an_agents_run_is_not_the_agents(serve, handler, ledger):
    far, gate = serve(script), handler(Budget(usd="0.50"))
    agent = FunctionAgent(name="first", llm=chat(far, gate), tools=[look_up])
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
    far = serve(script)
    with track(Budget(calls=40), meter=meter()):
        agents = [FunctionAgent(name=f"a{i}", llm=chat(far), tools=[look_up]) for i in range(4)]
        await asyncio.gather(*(agent.run(QUESTION) for agent in agents))
    audit(far, ledger, requests=8, entries=8, exact=True)


# -- second round


def test_a_fallback_after_a_refusal_inside_is_booked_at_the_outer_handler(serve, handler, meter, ledger):
    far = serve(ANSWER)
    guard, outer = handler(Budget(calls=1)), handler(Budget(calls=9), prices=MINI)
    inner = chat(far, guard, model="gpt-4o")
    inner.complete("the one")

    def first(prompt):
        with suppress(BudgetExceeded):
            inner.complete(prompt)

    Sends(client=sdk(far), first=first, callback_manager=CallbackManager([outer])).complete(QUESTION)
    assert len(far.requests) == 2
    audit(far, ledger, requests=2, entries=2, exact=False)


def test_reasoning_out_of_sight_of_a_native_structured_call_is_not_booked_at_what_is_visible(serve, meter, ledger):
    far = serve(Reply(text='{"name": "Bonn"}', input_tokens=50, output_tokens=1500, reasoning_tokens=1490))
    with track(Budget(usd="5"), meter=meter()):
        responses(far, model="gpt-5").structured_predict(City, PromptTemplate("Name a city"))
    books = audit(far, ledger, requests=1, entries=1, exact=False)
    # the hold is of 2,048 tokens at 10 per million, $0.02; 1,500 were billed
    assert books.booked_usd >= books.one()["cost_pico"] * Decimal(10) ** -12
    assert books.booked_usd >= Decimal("0.015"), f"booked {books.booked_usd}"


def _gemini(**options):
    from llama_index.llms.google_genai import GoogleGenAI

    return GoogleGenAI(model="gemini-2.5-flash", api_key="x", max_tokens=100, context_window=100_000, **options)


def _gemini_request(**options):
    from ai_budget_callbacks.llama_index.models import params_of
    from ai_budget_callbacks.llama_index.request import sizes_of

    return sizes_of(ASK, params_of(_gemini(**options), {}))


def test_what_geminis_generation_config_asks_for_is_part_of_the_request():
    from google.genai import types

    config = types.GenerateContentConfig(max_output_tokens=100, candidate_count=8, system_instruction="x" * 50_000)
    request = _gemini_request(generation_config=config)
    assert request.choices == 8
    assert request.text_bytes + request.tool_bytes >= 50_000


def test_geminis_search_and_cached_content_have_no_bound():
    from google.genai import types

    assert _gemini_request(built_in_tool=types.Tool(google_search=types.GoogleSearch())).hosted_tools
    assert _gemini_request(cached_content="cachedContents/1").other_parts


class Bare(LLM):
    """Without decorators, after something of another model."""

    client: Any = None
    first: Any = None

    @property
    def metadata(self):
        return LLMMetadata(model_name="gpt-4o-mini")

    def complete(self, prompt, formatted=False, **kwargs):
        if self.first is not None:
            self.first(prompt)
        return CompletionResponse(text=ask(self.client, prompt).choices[0].message.content)

    chat = stream_chat = stream_complete = achat = acomplete = astream_chat = astream_complete = complete


def test_a_model_without_decorators_that_embeds_first_is_counted(serve, meter, ledger):
    far = serve(lambda r: Reply(input_tokens=1000) if r.path.endswith("/embeddings") else ANSWER)
    with track(Budget(usd="0.5"), meter=meter(prices=MINI)):
        Bare(client=sdk(far), first=embedding(far).get_query_embedding).complete(QUESTION)
    audit(far, ledger, requests=2, entries=2, exact=False)


def test_a_model_without_decorators_that_times_out_is_unknown(serve, meter, ledger):
    far = serve(Reply(text="x", delay_s=1, **PAID))
    client = sdk(far).with_options(timeout=0.3)
    with suppress(openai.APITimeoutError), track(Budget(usd="0.5"), meter=meter(prices=MINI)):
        Bare(client=client).complete(QUESTION)
    assert read_back(ledger).statuses == ["unknown"]


class Odd(City):
    """A class whose schema cannot be read the way we read it; the integration reads it in another way."""

    @classmethod
    def model_json_schema(cls, *args, **kwargs):
        raise ValueError("not like this")


def test_a_fault_of_ours_does_not_send_a_native_structured_call_uncounted(serve, meter, ledger):
    far = serve(Reply(text='{"name": "Bonn"}', **PAID))
    with pytest.raises(ConfigError, match="could not be counted"), track(Budget(usd="0.5"), meter=meter()):
        claude(far).structured_predict(Odd, PromptTemplate("Name a city"))
    audit(far, ledger, requests=0, entries=0, usd="0")


def test_a_cut_stream_of_anthropic_is_at_least_what_was_seen(serve, handler, ledger):
    """Its first event says one output token; that is no count of what came after it."""
    replies = [ClaudeReply(text="x", input_tokens=30, output_tokens=5)] * 8
    far = serve([*replies, ClaudeReply(text="word " * 2000, input_tokens=30, output_tokens=4000)])
    model = claude(far, handler(Budget(usd="5")), max_tokens=8000, model="claude-haiku-4-5")
    for _ in range(8):
        model.chat(ASK)
    stream = model.stream_chat(ASK)
    for _ in range(1900):
        next(stream)
    stream.close()
    last = audit(far, ledger, requests=9, entries=9, exact=False).entries[-1]
    # 1,900 words of 5 bytes at 2.5 bytes a token: 3,800 x 5 per million is $0.019
    assert last["booked_pico"] >= 19_000_000_000, f"{last['booked_pico']} {last['usage']}"


async def test_a_crossing_in_an_async_batch_does_not_give_back_what_was_sent(serve, handler, ledger):
    far = serve(Reply(input_tokens=500))
    gate = handler(Budget(usd="0.000001", at_limit="raise"), reserve="none")
    with pytest.raises(BudgetExceeded):
        await embedding(far, gate).aget_text_embedding_batch(["a" * 1000] * 6)
    audit(far, ledger, requests=3, entries=3, exact=False)


async def test_missing_usage_in_an_async_batch_does_not_give_back_what_was_sent(serve, handler, ledger):
    far = serve(Reply(input_tokens=500))
    gate = handler(Budget(usd="1"), on_missing_usage="raise")
    with suppress(UsageMissing):
        await embedding(far, gate).aget_text_embedding_batch(["a" * 1000] * 4)
    audit(far, ledger, requests=2, entries=2, exact=False)


def test_the_model_of_a_call_is_the_one_that_is_priced(serve, handler, ledger):
    far = serve(ANSWER)
    chat(far, handler(Budget(usd="1"))).chat(ASK, model="gpt-4o")
    audit(far, ledger, requests=1, entries=1, exact=True)


def test_a_prompt_template_of_the_model_is_part_of_the_worst_case(serve, meter, ledger):
    far = serve(ANSWER)
    model = like(far, is_chat_model=False, completion_to_prompt=lambda p: "x" * 100_000 + p, max_tokens=100)
    with suppress(BudgetExceeded), track(Budget(usd="0.001"), meter=meter(reserve="worst_case")):
        model.complete(QUESTION)
    assert not far.requests


def test_agents_with_raise_end_at_the_crossing(serve, handler, ledger):
    far = serve(script)
    gate = handler(Budget(usd="0.0001", at_limit="raise"), reserve="none")
    with pytest.raises(BudgetExceeded):
        asyncio.run(_run(FunctionAgent(llm=chat(far, gate), tools=[look_up])))
    audit(far, ledger, requests=1, entries=1)


async def _run(agent):
    return await agent.run(QUESTION)


# -- third round


def test_a_free_model_inside_does_not_make_the_request_of_the_outer_one_free(serve, meter, ledger):
    far = serve(ANSWER)
    own = meter(prices=MINI | {"gpt-4o": "free"})
    with track(Budget(usd="0.50"), meter=own):
        Sends(client=sdk(far), first=chat(far, model="gpt-4o").complete).complete(QUESTION)
    books = read_back(ledger)
    assert books.booked_usd >= Decimal("0.00027"), f"{len(far.requests)} requests, {books.statuses}"


def test_a_cut_stream_of_responses_is_at_least_what_was_seen(serve, handler, ledger):
    """Its chunks carry their own piece of the text, not all of it so far."""

    def reply(request):
        if request.body.get("stream"):
            return Reply(text="word " * 2000, input_tokens=30, output_tokens=4000)
        return Reply(text="x", input_tokens=30, output_tokens=5)

    far = serve(reply)
    model = responses(far, handler(Budget(usd="5")))
    for _ in range(8):
        model.chat(ASK)
    stream = model.stream_chat(ASK)
    for _ in range(1900):
        next(stream)
    stream.close()
    last = audit(far, ledger, requests=9, entries=9, exact=False).entries[-1]
    # 1,890 words of 5 bytes at 2.5 bytes a token: 3,780 x 0.60 per million is $0.00227
    assert last["booked_pico"] >= 2_200_000_000, f"{last['booked_pico']} {last['usage']}"


def test_a_dropped_unread_stream_of_responses_sent_nothing_and_costs_nothing(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(usd="0.50"))
    stream = responses(far, gate).stream_chat(ASK)
    del stream
    gc.collect()
    audit(far, ledger, requests=0, entries=0)


class Verbose(Cheap):
    """Adds a long prompt of its own to what it asks the same model."""

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=self.inner.complete("x" * 100_000 + prompt).text)


def test_a_longer_request_inside_a_short_one_is_held_for_as_what_it_is(serve, meter, ledger):
    far = serve(Reply(text="x", input_tokens=50_000, output_tokens=10))
    own = meter(reserve="worst_case", prices=MINI)
    model = Verbose(inner=chat(far, max_tokens=10))
    with suppress(BudgetExceeded), track(Budget(usd="0.0005"), meter=own):
        model.complete(QUESTION, max_tokens=10)  # 100,000 bytes are 12,500 tokens at 0.15 per million, $0.001875
    assert not far.requests, f"booked {read_back(ledger).booked_usd} on a worst-case budget of $0.0005"


def test_a_used_up_budget_is_told_where_models_lack_decorators(serve, meter, ledger):
    far = serve(ANSWER)
    with pytest.raises(BudgetExceeded), track(Budget(calls=1), meter=meter(prices=MINI)):
        for _ in range(5):
            Bare(client=sdk(far)).complete(QUESTION)  # it cannot be stopped
    assert read_back(ledger).statuses == ["estimated"] * 5


@pytest.fixture
def wrapping():
    before = set(WRAPPERS)
    register_wrapper(OverLangChain)
    yield
    WRAPPERS.clear()
    WRAPPERS.update(before)


def _router(far, gate, **options):
    manager = no_handlers()
    manager.add_handler(gate)
    inner = _langchain(far, model="gpt-4o")
    return OverLangChain(model=inner, called="router", callback_manager=manager, **options)


def test_an_unread_wrappers_mark_is_not_spent_on_an_unrelated_call(serve, handler, ledger, wrapping):
    """The wrapper has no price of its own; what it wraps is counted by the mark alone."""
    far, gate = serve(ANSWER), handler(Budget(usd="0.50"))
    stream = _router(far, gate).stream_complete(QUESTION)
    _langchain(far).invoke(QUESTION)
    list(stream)
    assert "gpt-4o" in {row["model"] for row in read_back(ledger).entries}


def test_both_requests_of_an_unpriced_wrapper_are_counted(serve, handler, ledger, wrapping):
    far, gate = serve(ANSWER), handler(Budget(usd="0.50"))
    _router(far, gate, times=2).complete(QUESTION)
    audit(far, ledger, requests=2, entries=2)


def test_a_mark_is_taken_once_by_threads_that_share_it():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert max(_taken_by_threads() for _ in range(300)) == 1
    finally:
        sys.setswitchinterval(before)


def _taken_by_threads():
    mark = leave_mark("call", "llama_index", object())
    won, together = [], threading.Barrier(4)

    def take(name):
        together.wait()
        if take_mark("langchain", name) is not None:
            won.append(name)

    threads = [threading.Thread(target=contextvars.copy_context().run, args=(take, str(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mark.is_open = False
    return len(won)


# -- fourth round


def test_a_query_engine_over_models_that_were_given_a_handler_counts_all_its_requests(serve, handler, ledger):
    """The engine replaces the manager before the model's first call; the embedding is seen, so nothing is said."""
    far, gate = serve(script), handler(Budget(calls=3))
    index = index_of()
    index._embed_model = embedding(far, gate)
    engine = index.as_query_engine(llm=chat(far, gate))
    engine.query(QUESTION)
    audit(far, ledger, requests=2, entries=2, exact=False)


def test_a_model_that_nobody_counts_is_not_called_undecorated(serve, handler, ledger, caplog):
    far, gate = serve(ANSWER), handler(Budget(calls=3))
    unmetered.forget_named()
    chat(far, gate).complete(QUESTION)
    chat(far, callback_manager=no_handlers()).complete(QUESTION)
    assert "OpenAI.complete() is unmetered" not in caplog.text


def test_a_handler_for_each_request_of_a_service_does_not_stop_the_next_request(serve, handler, ledger):
    far = serve(ANSWER)
    for _ in range(3):
        model = chat(far, handler(Budget(calls=2)))
        model.complete(QUESTION)
        get_response_synthesizer(llm=model).synthesize(QUESTION, NODES)
    assert len(far.requests) == 6
    assert not Settings.callback_manager.handlers


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


def test_a_deep_copy_of_a_model_keeps_its_handler(serve, handler, ledger):
    far, gate = serve(ANSWER), handler(Budget(calls=1))
    twin = copy.deepcopy(chat(far, gate))
    twin.complete(QUESTION)
    with pytest.raises(BudgetExceeded):
        twin.complete(QUESTION)
    audit(far, ledger, requests=1, entries=1, usd="0.00027")
