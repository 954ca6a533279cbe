"""From LangChain's events to calls: events in, a few calls into the core (begin, finish, withdraw, abandon).

One sync handler with `raise_error=True`: async handlers on sync paths are swallowed by design
(`langchain_core.callbacks.manager._run_coros`). Refusal happens in the start event, before the request; nothing
here depends on a ContextVar it sets itself.
"""

from __future__ import annotations

import functools
import logging
import os
import weakref
from collections import OrderedDict, deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages.ai import add_usage

from ai_budget_callbacks.asked import asks_reasoning
from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.errors import AIBudgetError, BudgetExceeded, ConfigError, Refusal
from ai_budget_callbacks.hosts import Hosts
from ai_budget_callbacks.inflight import Target, abandon, abandon_run, begin, call_id_for, finish, finish_all, withdraw
from ai_budget_callbacks.langchain.errors import adapted
from ai_budget_callbacks.langchain.extract import counted_elsewhere, outcome_of
from ai_budget_callbacks.langchain.failures import Failure, judge
from ai_budget_callbacks.langchain.nodes import NodeHandler
from ai_budget_callbacks.langchain.request import CLOUDS, base_url, build_call, has_sound
from ai_budget_callbacks.locks import ForkSafeLock
from ai_budget_callbacks.marks import WRAPPERS, Mark, book_untaken, leave_mark, take_mark, with_marked
from ai_budget_callbacks.meter import Meter, OpenCall, Outcome
from ai_budget_callbacks.pricing.estimate import reasons_out_of_sight
from ai_budget_callbacks.usage import Terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.usage import Call

__all__ = ["CaptureHandler"]

log = logging.getLogger("ai_budget_callbacks")

_LATE = 1_000
_TEXT_BATCH = 20  # prompts `OpenAI(…)` sends in one request (langchain-openai 1.7.4 `BaseOpenAI.batch_size`)
_DIFFERENCES = frozenset({"google_genai", "perplexity"})  # langchain-google-genai 4.4, -perplexity 1.4
_handlers: weakref.WeakSet[CaptureHandler] = weakref.WeakSet()


@dataclass(slots=True)
class _Ongoing:
    """A call between its start and its end event."""

    call: Call
    opened: list[tuple[Meter, OpenCall]]
    hidden_reasoning: bool
    batch: object = None  # what all prompts of one `generate` share, or None for a single prompt
    chunks_with_usage: int = 0
    last_usage: Any = None
    task: Any = None
    text: bool = False  # a text model: one response for all prompts of a batch
    mark: object = None
    several_requests: bool = False  # more prompts than a text model's client sends at once
    streamed: bool = False
    twin: bool = False  # open beside a call of its size and model: one may have hit the other's answer
    prompt: Any = field(default=None, repr=False)
    wraps: Mark | None = None
    differences: bool = False  # its client makes differences of cumulative usage, which LangChain adds up rightly
    sounds: bool = False  # the request has audio that has a price of its own

    @property
    def last_chunk_usage(self) -> Any:
        """Set only when several chunks carried usage: then the last is the truth and the sum is not."""
        return self.last_usage if self.chunks_with_usage > 1 and not self.differences else None


class CaptureHandler(NodeHandler):
    """What both handlers share: from LangChain's events to calls. `targets()` says which meters count them."""

    raise_error = True
    # Never False: `AsyncCallbackManager.on_llm_start` does not tell non-inline handlers of text models when any other
    # handler is inline (langchain-core 1.8.3), and a limit that is not told does not hold.
    run_inline = True

    def __init__(self) -> None:
        super().__init__()
        self._ongoing: dict[str, _Ongoing] = {}
        self._starting: set[str] = set()
        self._late: OrderedDict[str, _Ongoing] = OrderedDict()  # ended with their run; a late end still counts
        self._lock = ForkSafeLock()
        self._hosts = Hosts()
        _handlers.add(self)
        self._refused_batches: deque[tuple[Any, AIBudgetError]] = deque(maxlen=64)
        self._paid: deque[str] = deque(maxlen=1_000)  # response ids

    def forget_calls(self) -> None:
        """In a forked child: calls in flight are the parent's to end."""
        self._ongoing.clear()
        self._starting.clear()
        self._late.clear()
        self.forget_fees()

    def forget_root(self, root: str) -> None:
        """A root run ended; its id will not come again."""

    def root_ended(self, root: str) -> None:
        """A root run ended: what got no end event by now gets none."""
        self._abandon(root)
        self.forget_root(root)

    def _abandon(self, root: str) -> None:
        """Calls of an ended root that got no end event (a cancelled `ainvoke` fires none) become unknown."""
        left = [key for key, item in list(self._ongoing.items()) if item.call.who.run_id == root]
        fees = self.set_fees_aside(self.fees_of(root))
        if self._set_aside(left) or fees:
            self._note_all(abandon_run(root, "its run ended while it was open (a cancelled call gives no event)"))

    def lost(self, run_ids: list[str]) -> None:
        """Calls and fees whose task ended before they did."""
        left = [self._ongoing[key].call.id for key in run_ids if key in self._ongoing]
        self._set_aside(run_ids)
        left += self.set_fees_aside(run_ids)
        self._note_all(abandon(left, "its task ended while it was open (a cancelled call gives no event)"))

    def _note_all(self, crossings: list[BudgetExceeded]) -> None:
        for crossing in crossings:
            self.note(crossing)

    def _set_aside(self, call_ids: Sequence[str]) -> list[str]:
        """Keep what a late end event needs; returns the ids that were open."""
        with self._lock:
            left = [key for key in call_ids if key in self._ongoing]
            for key in left:
                self._late[key] = self._ongoing.pop(key)
            while len(self._late) > _LATE:
                self._late.popitem(last=False)
        return left

    # -- calls

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Check and hold before the request. A raise here means nothing is sent."""
        self._start(serialized or {}, messages[0] if messages else [], run_id, parent_run_id, kwargs)

    def on_llm_start(
        self, serialized: Any, prompts: list[str], *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """The same for text models."""
        self._start(serialized or {}, prompts[:1], run_id, parent_run_id, kwargs, text=True)

    def _start(
        self,
        serialized: Mapping[str, Any],
        messages: Sequence[Any],
        run_id: UUID,
        parent_run_id: UUID | None,
        kwargs: Mapping[str, Any],
        *,
        text: bool = False,
    ) -> None:
        self.saw(call=True)
        runs = current_blocks()
        around = take_mark("langchain", str(run_id))  # a LlamaIndex call whose class wraps a LangChain model
        targets = with_marked(self.targets(runs), "langchain")
        if not targets:
            return
        # one object that all handlers of this event are given, and (an empty one too) no other event's
        mark = kwargs["invocation_params"] if kwargs.get("invocation_params") is not None else kwargs
        known = self._ongoing.get(str(run_id))
        if known is not None and known.mark is mark:
            return  # attached twice (`with_config` and `config`): LangChain tells us of everything twice
        call_id, origin = (around.call_id, around.origin) if around else (call_id_for(str(run_id), mark), mark)
        try:
            self._refuse_rest_of(mark)
            with self._alone(str(run_id)):
                call = self._call(
                    call_id, serialized, messages, parent_run_id, kwargs, runs, [target.meter for target in targets]
                )
                wraps = (serialized.get("id") or ("",))[-1] in WRAPPERS  # a model of the other framework
                ongoing = self._admit(call, targets, runs, str(run_id), origin, wraps=wraps)
                ongoing.mark, ongoing.text = mark, text
                self._describe(ongoing, serialized, messages, kwargs)
                ongoing.task = self._tasks.opened(run_id)
                self._ongoing[str(run_id)] = ongoing
                self._note_twins(ongoing)  # after: of two that start at once the later one sees the other
        except AIBudgetError as error:
            if isinstance(error, Refusal):
                self.note(error)
            self._refused_batches.append((mark, error))
            withdraw(origin)
            raise adapted(error) from None
        except BaseException:  # a fault of ours: nothing is sent, and nothing stays held
            withdraw(origin)
            raise

    def _describe(
        self, ongoing: _Ongoing, serialized: Mapping[str, Any], messages: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """Note what its end event will need."""
        prompts = kwargs.get("batch_size") or 1
        ongoing.batch = ongoing.mark if prompts > 1 else None
        ongoing.several_requests = ongoing.text and prompts > (
            (serialized.get("kwargs") or {}).get("batch_size") or _TEXT_BATCH
        )
        ongoing.hidden_reasoning |= asks_reasoning(kwargs.get("invocation_params") or {})
        ongoing.differences = (kwargs.get("metadata") or {}).get("ls_provider") in _DIFFERENCES
        ongoing.sounds = has_sound(messages) and _prices_audio(ongoing)
        if any(meter.store_content for meter, _ in ongoing.opened):
            ongoing.prompt = [getattr(message, "content", message) for message in messages]

    @contextmanager
    def _alone(self, run_id: str) -> Iterator[None]:
        """One start of a run id at a time, or one of two paid responses would find no open call and no entry."""
        with self._lock:
            if run_id in self._ongoing or run_id in self._starting:
                raise ConfigError(
                    f"Two calls at once have the run_id {run_id} and cannot be told apart. Give each its own."
                )
            self._starting.add(run_id)
        try:
            yield
        finally:
            self._starting.discard(run_id)

    def _call(
        self,
        call_id: str,
        serialized: Mapping[str, Any],
        messages: Sequence[Any],
        parent_run_id: UUID | None,
        kwargs: Mapping[str, Any],
        runs: tuple[Block, ...],
        meters: Sequence[Meter],
    ) -> Call:
        return build_call(
            run_id=call_id,
            node=self._tree.above(parent_run_id),
            parent_run_id=parent_run_id,
            provider=self._provider(meters[0], serialized, kwargs.get("metadata") or {}),
            serialized=serialized,
            messages=messages,
            kwargs=kwargs,
            runs=runs,
            meters=meters,
        )

    def _admit(
        self, call: Call, targets: Sequence[Target], runs: tuple[Block, ...], run_id: str, mark: object, *, wraps: bool
    ) -> _Ongoing:
        ongoing = _Ongoing(call, [], hidden_reasoning=reasons_out_of_sight(call.provider, call.model))
        forget = functools.partial(self._ongoing.pop, run_id, None)
        handed: list[Target] = []
        for target in targets:
            if wraps and not target.meter.prices.knows(call.provider, call.model, call.started_at):
                handed.append(target)  # what it wraps has a price, or is refused itself
                continue
            ongoing.opened.append((target.meter, begin(call, target, runs, mark=mark, forget=forget)))
        if wraps:
            ongoing.wraps = leave_mark(call.id, "langchain", mark, handed)
        return ongoing

    def _refuse_rest_of(self, mark: object) -> None:
        """A prompt of a `generate` was refused, so none of them is sent; later prompts need not ask."""
        for refused, error in list(self._refused_batches):
            if refused is mark:
                raise error

    def _siblings(self, batch: object) -> list[_Ongoing]:
        with self._lock:
            keys = [key for key, item in list(self._ongoing.items()) if item.batch is batch]
            return [self._ongoing.pop(key) for key in keys]

    def _provider(self, meter: Meter, serialized: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
        url = base_url(serialized)
        word = str(metadata.get("ls_provider") or (serialized.get("id") or ["unknown"])[-1])
        return CLOUDS.get(word) or self._hosts.provider(meter.prices, url, word)

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        """Watch for usage in chunks: when several carry it, only the last one counts."""
        usage = getattr(getattr(chunk, "message", None), "usage_metadata", None)
        ongoing = self._ongoing.get(str(run_id))
        if ongoing is not None:
            ongoing.streamed = True
            if usage and (usage.get("input_tokens") or usage.get("output_tokens")):
                ongoing.chunks_with_usage += 1
                before = ongoing.last_usage if ongoing.differences else None
                ongoing.last_usage = add_usage(before, usage) if before else usage

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Price and commit, then raise if a limit with `at_limit="raise"` was crossed."""
        ongoing = self._pop(run_id)
        if ongoing is None:
            return
        if ongoing.batch is not None and counted_elsewhere(response):
            self._finish(ongoing, None, "counted with the first prompt of its batch: one response")
        else:
            self._finish(ongoing, self._answer(response, ongoing), "", response)

    def _answer(self, response: Any, ongoing: _Ongoing) -> Outcome:
        """What an end event says; of an answer and its cache hits, told apart by nothing, one is booked."""
        shared = ongoing.batch is not None or ongoing.twin
        outcome = _read(response, ongoing, shared=shared)
        if shared and outcome.response_id in self._paid and _read(response, ongoing, shared=False).kind == "cached":
            return Outcome(kind="cached", response=response)
        if outcome.kind == "answer" and outcome.response_id is not None:
            self._paid.append(outcome.response_id)
        return outcome

    def _note_twins(self, ongoing: _Ongoing) -> None:
        """Calls that may be the same question at the same time."""
        call = ongoing.call
        for other in list(self._ongoing.values()):
            same = other.call.model == call.model and other.call.request.text_bytes == call.request.text_bytes
            if same and other is not ongoing:
                other.twin = ongoing.twin = True

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Release what was never billed; settle what was, or may have been."""
        ongoing = self._pop(run_id)
        if ongoing is None:
            return
        if isinstance(error, Refusal):
            self.note(error)
        failure = _judge(error, kwargs.get("response"), ongoing)
        if failure.outcome is None and ongoing.several_requests:
            reason = f"one of the requests of its batch failed ({type(error).__name__}); the others may be billed"
            failure = Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)
        # the error under way is the one the caller must see; a crossing is noted and closes, and is not raised over it
        with suppress(AIBudgetError):
            self._finish(ongoing, failure.outcome, failure.reason, kwargs.get("response"))
        if not ongoing.text:  # text models are told of an error for every prompt
            self._lose_siblings(ongoing)

    def _pop(self, run_id: UUID) -> _Ongoing | None:
        with self._lock:
            ongoing = self._ongoing.pop(str(run_id), None) or self._late.pop(str(run_id), None)
        if ongoing is not None:
            self._tasks.ended(ongoing.task, str(run_id))
            if ongoing.wraps is not None:
                ongoing.wraps.is_open = False
        return ongoing

    def _finish(self, ongoing: _Ongoing, outcome: Outcome | None, reason: str, response: Any = None) -> None:
        """End the call at every meter; the first thing that must be raised is raised after all have committed."""
        if outcome is not None and ongoing.prompt is not None:
            outcome = _with_content(outcome, ongoing.prompt, response)
        first = finish_all(ongoing.opened, outcome, reason)
        for crossing in book_untaken(ongoing.wraps, ongoing.call, outcome):
            self.note(crossing)
        if ongoing.call.who.run_id == ongoing.call.id:  # the call was its own root
            for meter, _ in ongoing.opened:
                meter.forget_run(ongoing.call.id)
        if first is not None:
            if isinstance(first, Refusal):
                self.note(first)
            self._lose_siblings(ongoing)
            raise adapted(first) from None

    def _lose_siblings(self, ongoing: _Ongoing) -> None:
        """A failure of one prompt costs the others of a sync `generate` their end events, though some are paid."""
        if ongoing.batch is None:
            return
        outcome = None  # prompts of a text model share one response, which stands with the first
        if not ongoing.text:
            reason = "its end event was lost when another prompt of its generate() failed"
            outcome = Outcome(kind="unknown", reason=reason)
        for sibling in self._siblings(ongoing.batch):
            self._late[sibling.call.id.partition("~")[0]] = sibling
            for meter, opened in sibling.opened:
                with suppress(AIBudgetError):
                    finish(opened, meter, outcome, "counted with the first prompt of its batch: one response")


def _prices_audio(ongoing: _Ongoing) -> bool:
    """Whether audio has a price of its own at the first meter that counts the call."""
    call = ongoing.call
    cards = (meter.prices.card(call.provider, call.model, Terms(), call.started_at) for meter, _ in ongoing.opened[:1])
    return any("input_audio" in getattr(card, "rates", ()) for card in cards)


def _judge(error: BaseException, response: Any, ongoing: _Ongoing) -> Failure:
    """What an error event means; one that our own reader cannot judge is booked as unknown, loudly."""
    try:
        return judge(
            error,
            response,
            choices=ongoing.call.request.choices,
            provider=ongoing.call.provider,
            last_chunk_usage=ongoing.last_usage,
        )
    except Exception as fault:
        log.exception("A failure of %r could not be judged and is booked as unknown.", ongoing.call.model)
        reason = f"its failure could not be judged ({type(fault).__name__})"
        return Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)


def _read(response: Any, ongoing: _Ongoing, *, shared: bool) -> Outcome:
    """What an end event says; an answer that our own reader cannot read is booked as unknown, loudly."""
    try:
        return outcome_of(
            response,
            choices=ongoing.call.request.choices,
            provider=ongoing.call.provider,
            last_chunk_usage=ongoing.last_chunk_usage,
            hidden_reasoning=ongoing.hidden_reasoning,
            asked_speed=ongoing.call.request.speed,
            shared=shared,
            streamed=ongoing.streamed,
            asked=ongoing.call.model,
            sounds=ongoing.sounds,
        )
    except Exception as error:
        log.exception("An answer of %r could not be read and is booked as unknown.", ongoing.call.model)
        return Outcome(
            kind="unknown", reason=f"its usage could not be read ({type(error).__name__})", response=response
        )


def _with_content(outcome: Outcome, prompt: Any, response: Any) -> Outcome:
    answer = [
        getattr(getattr(generation, "message", None), "content", None) or getattr(generation, "text", None)
        for generations in getattr(response, "generations", None) or ()
        for generation in generations
    ]
    return replace(outcome, content={"prompt": prompt, "completion": answer})


def _forget_the_parents_calls() -> None:
    for handler in list(_handlers):
        handler.forget_calls()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parents_calls)
