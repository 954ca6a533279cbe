"""From LlamaIndex's callback events to calls: events in, a few calls into the core (begin, finish, withdraw).

A gate is a callback handler that stands first in the manager of a model: only what runs inside the call path can stop
a call (facts/llamaindex.md 2), so the refusal is raised in the start event, and the ledger is written in the end event.
"""

from __future__ import annotations

import functools
import logging
import os
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler

from ai_budget_callbacks.asked import asks_reasoning
from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.errors import AIBudgetError, BudgetExceeded, Refusal
from ai_budget_callbacks.hosts import Hosts
from ai_budget_callbacks.inflight import abandon, begin, finish_all, withdraw
from ai_budget_callbacks.llama_index.extract import counted_texts, outcome_of, same_answer, with_content
from ai_budget_callbacks.llama_index.failures import judged
from ai_budget_callbacks.llama_index.models import client_url, client_word, model_name, params_of
from ai_budget_callbacks.llama_index.reports import Report, close_report, open_report
from ai_budget_callbacks.llama_index.request import build_call, embedding_texts, sizes_of
from ai_budget_callbacks.llama_index.streams import ask_for_usage
from ai_budget_callbacks.llama_index.tree import span_tree
from ai_budget_callbacks.llama_index.wrappers import is_shell
from ai_budget_callbacks.locks import ForkSafeLock
from ai_budget_callbacks.marks import Mark, book_untaken, is_wrapper, leave_mark, mark_waits, take_mark, with_marked
from ai_budget_callbacks.meter import Meter, OpenCall, Outcome
from ai_budget_callbacks.pricing.estimate import reasons_out_of_sight
from ai_budget_callbacks.sizes import text_bytes
from ai_budget_callbacks.usage import Call, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_budget_callbacks.blocks import Block
    from ai_budget_callbacks.inflight import Target
    from ai_budget_callbacks.llama_index.tree import Span

__all__ = ["GateHandler", "Start"]

log = logging.getLogger("ai_budget_callbacks")

_TOLD = (CBEventType.LLM, CBEventType.EMBEDDING)
_IGNORED = [kind for kind in CBEventType if kind not in _TOLD]
_gates: weakref.WeakSet[GateHandler] = weakref.WeakSet()


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What is known of a call that starts.

    Attributes:
        payload: The event's, or what stands for it where there is no event.
        given: The call's keyword arguments.
        messages: Messages or the prompt's text; None for an embedding.
        instance: The model, or None where no span said.
        params: What the request asks for: see `request.params_of`.
    """

    payload: Mapping[str, Any]
    given: Mapping[str, Any]
    messages: Sequence[Any] | None
    instance: Any
    params: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Read the parameters once; several questions are asked of them."""
        params = {} if self.messages is None else params_of(self.instance, self.given)
        object.__setattr__(self, "params", params)


@dataclass(slots=True)
class _Ongoing:
    """A call between its start and its end."""

    call: Call
    opened: list[tuple[Meter, OpenCall]]
    hidden_reasoning: bool = False
    mark: Mark | None = None
    prompt: Any = field(default=None, repr=False)


class GateHandler(BaseCallbackHandler):
    """What both gates share. `targets()` says which meters count a call."""

    def __init__(self) -> None:
        super().__init__(event_starts_to_ignore=list(_IGNORED), event_ends_to_ignore=list(_IGNORED))
        self._ongoing: dict[str, _Ongoing] = {}  # by call id
        self._reports: dict[str, Report] = {}  # by event id
        self._wrapping: dict[str, tuple[Call, Sequence[Target]]] = {}  # calls that had a report inside, by report
        self._hosts = Hosts()
        self._lock = ForkSafeLock()
        _gates.add(self)

    def targets(self, runs: tuple[Block, ...]) -> Sequence[Target]:
        """Meters that count a call made under these `track()` blocks."""
        raise NotImplementedError

    def note(self, refusal: Refusal) -> None:
        """A call was refused or crossed."""

    def saw(self, *, call: bool) -> None:
        """LlamaIndex told of something."""

    def lose_all(self, reason: str) -> None:
        """What is in flight is booked as unknown; a late end corrects it nowhere."""
        left = [item.call.id for item in self._ongoing.values()]
        self.forget_calls()
        for crossing in abandon(left, reason):
            self.note(crossing)

    def forget_calls(self) -> None:
        """In a forked child: calls in flight are the parent's to end."""
        self._ongoing.clear()
        self._reports.clear()
        self._wrapping.clear()

    def __copy__(self) -> Self:
        """A copy of a model has the same handler: it limits both."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same."""
        return self

    def __reduce__(self) -> Any:
        """Refuse to be sent to another process, loudly: LlamaIndex drops what cannot be pickled and goes on."""
        name = type(self).__name__
        text = (
            f"A {name} cannot go into another process: calls made there (IngestionPipeline(num_workers=…)) are neither "
            "counted nor limited by it. Call install(Meter(…, ledger=FILE)) in each process."
        )
        log.warning("%s", text)
        raise TypeError(text)

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing to do: traces say nothing of calls."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Nothing to do."""

    # -- starts

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        """Check and hold before the request. A raise here means nothing is sent."""
        if event_type in _TOLD and event_id not in self._reports:
            span = span_tree.current()
            span_tree.note_report(span, inner=event_type == CBEventType.EMBEDDING)
            self.saw(call=True)
            if not is_shell(span, payload or {}):
                runs = current_blocks()
                targets = self.targets(runs)
                if targets or mark_waits("llama_index"):
                    self.begin(
                        open_report(event_id, event_type.value, span),
                        _start_of(event_type, payload or {}, span),
                        targets,
                        runs,
                    )
        return event_id

    def begin(self, report: Report, start: Start, targets: Sequence[Target], runs: tuple[Block, ...]) -> None:
        """A report of a call starts.

        Raises:
            BudgetExceeded, PriceUnknown, LedgerError, ConfigError: Nothing may be sent.
        """
        self._reports[report.id] = report
        report.gates.append(self)
        try:
            self._join(report)
            targets = with_marked(targets, "llama_index")
            if targets:
                call = self._call(report, start, runs, [target.meter for target in targets])
                outer = self._ongoing.get(report.call_id)
                if outer is None:
                    self._admit(report, call, targets, runs, start)
                    if report.root is None:
                        self._wrapping[report.id] = (call, targets)
                else:
                    self._take_over(outer, report, call, targets, runs, start)
        except AIBudgetError as error:
            if isinstance(error, Refusal):
                self.note(error)
            self._stop(report)
            raise
        except BaseException:  # a fault of ours: nothing is sent, and nothing stays held
            self._stop(report)
            raise
        ask_for_usage(report.span, start.payload)

    def _stop(self, report: Report) -> None:
        for gate in report.gates:
            gate.forget_report(report)
        close_report(report)
        withdraw(report.origin)

    def forget_report(self, report: Report) -> None:
        """Nothing of it will be sent."""
        self._reports.pop(report.id, None)

    def _join(self, report: Report) -> None:
        """A call of the other framework around this one, whose class is a known wrapper, is the same request."""
        mark = take_mark("llama_index", report.id)
        if mark is not None and report.call_id != mark.call_id:
            report.call_id, report.origin = mark.call_id, mark.origin

    def _call(self, report: Report, start: Start, runs: tuple[Block, ...], meters: Sequence[Meter]) -> Call:
        instance = start.instance
        provider = self._hosts.provider(meters[0].prices, client_url(instance), client_word(instance, start.payload))
        model = model_name(start.payload, instance, start.given)
        if start.messages is None:
            texts = embedding_texts(report.span) if not report.counted else report.texts
            report.texts, report.counted = texts or (), texts is not None
            request = Request(text_bytes=sum(map(text_bytes, report.texts)), messages=0, output=False)
        else:
            count = next((found for meter in meters if (found := meter.token_counter(provider, model))), None)
            request = sizes_of(start.messages, start.params, count)
        return build_call(
            event_id=report.call_id,
            span=report.span,
            provider=provider,
            model=model,
            request=request,
            runs=runs,
        )

    def _admit(
        self, report: Report, call: Call, targets: Sequence[Target], runs: tuple[Block, ...], start: Start
    ) -> None:
        ongoing = _Ongoing(call, [])
        ongoing.hidden_reasoning = reasons_out_of_sight(call.provider, call.model) or asks_reasoning(start.params)
        forget = functools.partial(self._ongoing.pop, call.id, None)
        wrapper = start.instance is not None and is_wrapper(type(start.instance))
        handed: list[Target] = []
        for target in targets:
            if wrapper and not target.meter.prices.knows(call.provider, call.model, call.started_at):
                handed.append(target)  # what it wraps has a price, or is refused itself
                continue
            opened = begin(call, target, runs, mark=report.origin, forget=forget)
            ongoing.opened.append((target.meter, opened))
        if any(meter.store_content for meter, _ in ongoing.opened):
            ongoing.prompt = [getattr(message, "content", message) for message in start.messages or report.texts]
        self._ongoing[call.id] = ongoing
        if wrapper:
            ongoing.mark = leave_mark(call.id, "llama_index", report.origin, handed)

    def _take_over(
        self,
        outer: _Ongoing,
        report: Report,
        call: Call,
        targets: Sequence[Target],
        runs: tuple[Block, ...],
        start: Start,
    ) -> None:
        """A report inside another one: where it is of another model, that one is asked, held for and booked."""
        if outer.mark is not None:
            outer.mark.taken_by = report.id
        if (outer.call.provider, outer.call.model) == (call.provider, call.model):
            return
        root = report.root
        if root is not None and outer.mark is None and root.gates == [self]:
            withdraw(report.origin)  # nobody else shares the hold: it is made anew, as large as that model needs
            self._admit(report, call, targets, runs, start)
            return
        forget = functools.partial(self._ongoing.pop, call.id, None)
        found = [(item.meter, begin(call, item, runs, mark=report.origin, forget=forget)) for item in targets]
        outer.opened[:0] = found  # settled first
        outer.call = call
        outer.hidden_reasoning |= reasons_out_of_sight(call.provider, call.model)

    # -- ends

    def on_event_end(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **kwargs: Any
    ) -> None:
        """Price and commit, then raise if a limit with `at_limit="raise"` was crossed."""
        report = self._reports.get(event_id)
        if report is None:
            return
        payload = payload or {}
        error = payload.get(EventPayload.EXCEPTION)
        if error is not None:
            self.fail(report, error)
        elif event_type == CBEventType.EMBEDDING:
            self._end_embedding(report, payload)
        else:
            response = payload.get(EventPayload.RESPONSE) or payload.get(EventPayload.COMPLETION)
            self.end(report, lambda ongoing: _answer(response, ongoing))

    def _end_embedding(self, report: Report, payload: Mapping[str, Any]) -> None:
        vectors = payload.get(EventPayload.EMBEDDINGS)
        if vectors is None:  # core ends the event with nothing where something else than an Exception went through
            reason = "it ended without vectors"
            self.end(report, lambda _: Outcome(kind="unknown", reason=reason))
            return
        if report.counted:
            self.end(report, lambda _: counted_texts(report.texts, vectors))
            return
        texts = tuple(map(str, payload.get(EventPayload.CHUNKS) or ()))  # no span said before: all of it counts
        self.end(report, lambda _: counted_texts(texts, vectors))

    def fail(self, report: Report, error: BaseException) -> None:
        """A report ends with an exception; it is the one the caller must see, so nothing is raised over it."""
        if isinstance(error, Refusal):
            self.note(error)
        failure = judged(error, report.last, report.seen)
        try:
            self.end(report, lambda _: failure.outcome, failure.reason)
        except AIBudgetError as crossing:
            log.debug("%s", crossing)  # noted and closed by now

    def end(self, report: Report, read: Any, reason: str = "") -> None:
        """A report ends: the first of its request to end here ends the call.

        Args:
            report: The report.
            read: Makes the outcome from the ongoing call; None gives the hold back.
            reason: Words for the event then.
        """
        self._reports.pop(report.id, None)
        wrapping = self._wrapping.pop(report.id, None)
        with self._lock:
            ongoing = self._ongoing.pop(report.call_id, None)
        close_report(report)
        if ongoing is None:
            self._end_wrapping(report, wrapping, read)
            return
        if ongoing.mark is not None:
            ongoing.mark.is_open = False
        outcome = read(ongoing)
        (report.root or report).told = outcome
        if outcome is not None and ongoing.prompt is not None:
            outcome = with_content(outcome, ongoing.prompt)
        try:
            self._finish(ongoing, outcome, reason)
        except AIBudgetError:
            for gate in report.gates:  # the framework does not tell those after this one; their meters have settled
                gate.forget_ended(report)
            raise

    def forget_ended(self, report: Report) -> None:
        """Its call was ended by another gate, and its end will not be told here."""
        self.forget_report(report)
        self._ongoing.pop(report.call_id, None)
        self._wrapping.pop(report.id, None)

    def _end_wrapping(self, report: Report, wrapping: tuple[Call, Sequence[Target]] | None, read: Any) -> None:
        """A report ends whose call another one inside it ended: an answer with usage of its own is one more request."""
        if wrapping is None or not report.has_inner:
            return
        call, targets = wrapping
        outcome = read(_Ongoing(call, []))
        if outcome is None or outcome.kind != "answer" or outcome.usage is None or same_answer(outcome, report.told):
            return
        self.book_spent(replace(call, id=f"{call.id}.own"), outcome, targets)

    def _finish(self, ongoing: _Ongoing, outcome: Outcome | None, reason: str) -> None:
        """End the call at every meter; the first thing that must be raised is raised after all have committed."""
        first = finish_all(ongoing.opened, outcome, reason)
        for crossing in book_untaken(ongoing.mark, ongoing.call, outcome):
            self.note(crossing)
        if first is not None:
            if isinstance(first, BudgetExceeded):
                self.note(first)
            raise first

    def book_unreported(self, span: Span, start: Start, outcome: Outcome) -> None:
        """Book a request that no event reported, after it was made."""
        runs = current_blocks()
        targets = self.targets(runs)
        if not targets:
            return
        report = Report(id=span.id, kind="llm", call_id=span.id, span=span, origin=object())
        call = self._call(report, start, runs, [target.meter for target in targets])
        outcome = replace(outcome, hidden_reasoning=reasons_out_of_sight(call.provider, call.model))
        for target in targets:
            try:
                opened = begin(call, target, runs, mark=report.origin, forget=lambda: None)
            except Refusal as refusal:  # it was sent all the same; whoever asked for the limit must hear of it
                self.note(refusal)
                self.book_spent(call, outcome, [target])
                continue
            self._finish(_Ongoing(call, [(target.meter, opened)]), outcome, "")

    def book_spent(self, call: Call, outcome: Outcome | None, targets: Sequence[Target]) -> None:
        """Book a request that nothing could hold or refuse before it was sent."""
        for target in targets:
            if outcome is None:
                continue
            try:
                target.meter.book_spent(call, outcome, extra=target.extra, scopes=target.scopes)
            except BudgetExceeded as crossing:
                self.note(crossing)


def _start_of(event_type: CBEventType, payload: dict[str, Any], span: Span | None) -> Start:
    given = payload.get(EventPayload.ADDITIONAL_KWARGS)
    messages: Sequence[Any] | None = None
    if event_type == CBEventType.LLM:
        prompt = payload.get(EventPayload.PROMPT)
        messages = payload.get(EventPayload.MESSAGES) if prompt is None else [prompt]
    return Start(
        payload=payload,
        given=given if given is not None else {},
        messages=(messages or ()) if event_type == CBEventType.LLM else None,
        instance=span.instance if span is not None else None,
    )


def _answer(response: Any, ongoing: _Ongoing) -> Outcome:
    """What an end event says; an answer that our own reader cannot read is booked as unknown, loudly."""
    try:
        return outcome_of(
            response,
            asked=ongoing.call.model,
            hidden_reasoning=ongoing.hidden_reasoning,
            asked_speed=ongoing.call.request.speed,
            asked_caching=ongoing.call.request.cache_control,
        )
    except Exception as error:
        log.exception("An answer of %r could not be read and is booked as unknown.", ongoing.call.model)
        return Outcome(
            kind="unknown", reason=f"its usage could not be read ({type(error).__name__})", response=response
        )


def _forget_the_parents_calls() -> None:
    span_tree.forget()
    for gate in list(_gates):
        gate.forget_calls()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parents_calls)
