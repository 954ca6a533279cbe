"""Reserve → settle | release: the one place where the order of operations lives.

A call is checked and held in one ledger transaction before it is sent; its answer is priced and committed before
anything is raised. Framework adapters know `Call`, `Outcome` and `Meter`, nothing deeper.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks import messages
from ai_budget_callbacks.admission import Admission, Policy, admit, exceeded
from ai_budget_callbacks.blocks import close_block, current_blocks
from ai_budget_callbacks.booking import Outcome, book_outcome
from ai_budget_callbacks.budget import Attached, Budget
from ai_budget_callbacks.charges import charge_call, spent, who_around
from ai_budget_callbacks.errors import (
    BudgetExceeded,
    ConfigError,
    LedgerError,
    PriceUnknown,
    Refusal,
    UsageMissing,
)
from ai_budget_callbacks.events import CallRefused, CallReleased, CallReserved, CallSettled, Event, Listener
from ai_budget_callbacks.learned import Samples
from ai_budget_callbacks.ledger import Claim, Entry, Hold, NoRoom, Query, open_ledger
from ai_budget_callbacks.locks import ForkSafeLock
from ai_budget_callbacks.money import usd_decimal
from ai_budget_callbacks.pricing.estimate import Learned
from ai_budget_callbacks.pricing.file import price_book
from ai_budget_callbacks.pricing.snapshot import warn_if_old
from ai_budget_callbacks.pricing.tokenizer import token_counter
from ai_budget_callbacks.report import BalanceView, Summary, balance_views, summarise
from ai_budget_callbacks.settings import default_ledger
from ai_budget_callbacks.spool import Spool

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from decimal import Decimal

    from ai_budget_callbacks.pricing.file import Factors, Prices
    from ai_budget_callbacks.usage import Call
from ai_budget_callbacks.watch import Watch

__all__ = ["BalanceView", "Meter", "OpenCall", "Outcome"]

log = logging.getLogger("ai_budget_callbacks")

_RUNS = 10_000
_WARN_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall:
    """A call that was admitted and is now being made.

    Attributes:
        call: The call.
        admission: What was asked of its budgets.
        hold: The ledger's hold, or None when the ledger was down and only budgets that warn apply.
        scopes: Ids whose summaries it belongs to.
    """

    call: Call
    admission: Admission
    hold: Hold | None
    scopes: tuple[str, ...]

    @property
    def booked_as(self) -> Call:
        """The call under the id the ledger knows it by: another one where the caller used an id twice."""
        return self.call if self.hold is None else self.hold.call


class Meter:
    """Budgets, prices and a ledger. Safe to share between threads, tasks, handlers and forked processes.

    Construction opens and migrates the ledger, probes one write and loads the price data, so faults and slow
    imports appear here and not in a request.

    Args:
        budgets: Budgets that apply to every call of this meter.
        ledger: Path or URL; None for `AI_BUDGET_LEDGER` or a file in the user data directory; `":memory:"` for tests.
        prices: Prices of one's own, `{"my-model": Price(…)}`, `SameAs(…)` or `"free"`, or the path of a TOML file with
            them; None for the file that `AI_BUDGET_PRICES` names.
        factors: A factor on the list prices of a provider: `{"openai": "0.85"}`.
        reserve: `"expected"`, `"worst_case"`, `"none"`, or a USD amount to hold for each call.
        on_unpriced: `"refuse"`, or a USD amount booked for each call without a price.
        on_missing_usage: `"estimate"`, or `"raise"` (after booking the estimate).
        durability: `"process"` or `"power"` (a settle waits for the disk).
        ttl_s: Seconds after which an open call of a living process is booked as unknown.
        listeners: Callables that take one event.
        store_content: Keep prompts and completions in the ledger.

    Raises:
        ConfigError: An argument makes no sense.
        LedgerError: The ledger cannot be used.
    """

    def __init__(
        self,
        budgets: Sequence[Budget] | Budget = (),
        *,
        ledger: str | os.PathLike[str] | None = None,
        prices: Prices | None = None,
        factors: Factors | None = None,
        reserve: str | Decimal = "expected",
        on_unpriced: str | Decimal = "refuse",
        on_missing_usage: str = "estimate",
        durability: str = "process",
        ttl_s: float = 1800,
        listeners: Sequence[Listener] = (),
        store_content: bool = False,
    ) -> None:
        self.id = f"meter-{uuid.uuid4().hex}"
        self.policy = Policy.read(reserve, on_unpriced)
        if on_missing_usage not in {"estimate", "raise"}:
            raise ConfigError(f'on_missing_usage must be "estimate" or "raise", not {on_missing_usage!r}.')
        if isinstance(ttl_s, bool) or not isinstance(ttl_s, (int, float)) or not ttl_s > 0:
            raise ConfigError(f"ttl_s must be a positive number of seconds, not {ttl_s!r}.")
        self.on_missing_usage = on_missing_usage
        self.ttl = timedelta(seconds=ttl_s)
        self.durability = durability
        self.store_content = store_content
        self.prices = price_book(prices, factors)
        warn_if_old(self.prices.prices_as_of, datetime.now(UTC).date())  # loads the price data now, not in a request
        self.token_counter("openai", "gpt-4o")  # the tokenizer too, where it will be needed
        self._listeners = tuple(listeners)
        self._watch = Watch(self._emit)
        self._attached = self.attach(_budgets(budgets), self.id)
        self.ledger = open_ledger(str(ledger) if ledger is not None else default_ledger(), durability=durability)
        self.register(self._attached)
        self._samples = Samples(self.ledger)
        self._lock = ForkSafeLock()
        self._closed_runs: OrderedDict[str, Refusal] = OrderedDict()
        self._runs: OrderedDict[str, None] = OrderedDict()  # that go on, and have balances of their own
        self._unpriced: set[tuple[str, str]] = set()
        self._said: dict[str, float] = {}
        self._spool = Spool()
        self._shut = False
        self.ledger.sweep(datetime.now(UTC))

    def token_counter(self, provider: str, model: str) -> Callable[[str], int | None] | None:
        """What counts a prompt's tokens exactly, where this meter reserves worst cases and the tokenizer is on disk."""
        return token_counter(*self.prices.behind(provider, model)) if self.policy.reserve == "worst_case" else None

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._shut

    # -- budgets

    def attach(self, budgets: Sequence[Budget], owner: str, *, block: bool = False) -> tuple[Attached, ...]:
        """Attach budgets to an owner (a handler, a `track()` block, this meter)."""
        return tuple(Attached.make(b, owner, i, block=block) for i, b in enumerate(budgets))

    def register(self, attached: Sequence[Attached]) -> None:
        """Make attached budgets known to the ledger.

        Raises:
            ConfigError: A durable name is in use with another identity.
        """
        if attached:
            for note in self.ledger.register(attached):
                log.info("%s", note)

    def balances(self, *, run: str | None = None, **fields: str) -> list[BalanceView]:
        """Balances of this meter's budgets in their current window; with `per="run"`, of the runs that go on here.

        Args:
            run: Only this run's, of budgets with `per="run"`; it may be over.
            fields: Values of `by` fields to look at, for example `user="alice"`. Without them every scope that was
                used in the current window is listed. Balances of runs do not say whose they are, so they are left out
                where the budget is not `by` one of the fields.

        Raises:
            ConfigError: No budget of this meter is `by` such a field.
        """
        runs = {self.id, *self._runs, *(block.id for block in current_blocks()[:1])} if run is None else {run}
        return balance_views(self._attached, self.ledger.balances(), fields, datetime.now(UTC), runs, named=run)

    # -- the life of a call

    def reserve(self, call: Call, *, extra: Sequence[Attached] = (), scopes: Sequence[str] = ()) -> OpenCall:
        """Check a call against its budgets and hold its estimate, in one transaction, before it is sent.

        Args:
            call: The call.
            extra: Budgets of the handler or `track()` blocks, besides the meter's own.
            scopes: Ids whose summaries the call belongs to.

        Raises:
            BudgetExceeded: A budget has no room, or the run was closed by an earlier refusal.
            PriceUnknown: Nobody can say what the call costs and a USD budget applies.
            LedgerError: The ledger is down and a budget that stops applies.
            ConfigError: The meter was closed.
        """
        if self._shut:
            raise ConfigError("This meter was closed; a call after close() would not be counted. Make a new one.")
        budgets = (*self._attached, *extra)
        try:
            self._refuse_closed(call)
            self.replay()
            admission = admit(call, budgets, self.prices, self.policy, self._samples.learned)
            self._note_unpriced(call, admission)
            opened = self._hold(call, admission, self._scopes(scopes))
        except (BudgetExceeded, PriceUnknown) as refusal:
            self._emit(CallRefused(call=call, budget=refusal.budget, reason=refusal.message))
            raise
        except LedgerError:
            if any(item.budget.stops for item in budgets):
                raise
            self.say("down", "The ledger is down; calls go on uncounted because no budget here stops them.")
            admission = admit(call, budgets, self.prices, self.policy, lambda _: Learned())
            opened = OpenCall(call=call, admission=admission, hold=None, scopes=self._scopes(scopes))
        if self._listeners:
            held = admission.held_pico
            self._emit(CallReserved(call=call, held_usd=None if held is None else usd_decimal(held)))
        return opened

    def _scopes(self, scopes: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.id, *scopes)))

    def _hold(self, call: Call, admission: Admission, scopes: tuple[str, ...]) -> OpenCall:
        claim = Claim(
            call=call,
            wants=admission.wants,
            scopes=scopes,
            estimate_pico=admission.estimate.usd_pico,
            estimate_tokens=admission.estimate.tokens,
            expires_at=call.started_at + self.ttl,
        )
        try:
            hold = self.ledger.reserve(claim)
        except NoRoom:
            self.ledger.sweep(datetime.now(UTC))  # holds of dead processes must not refuse the living
            try:
                hold = self.ledger.reserve(claim)
            except NoRoom as refusal:
                raise exceeded(call, admission, refusal) from None
        if call.who.run_id is not None and any(item.budget.per == "run" for item in self._attached):
            self._remember_run(call.who.run_id)
        return OpenCall(call=call, admission=admission, hold=hold, scopes=scopes)

    def _refuse_closed(self, call: Call) -> None:
        if call.who.run_id is None or not call.who.root_seen:
            return
        closed = self._closed_runs.get(call.who.run_id)
        if closed is not None:
            raise closed.again()

    def close_run(self, run_id: str, refusal: Refusal) -> None:
        """Refuse every later start of a run after one of its calls was refused."""
        with self._lock:
            self._closed_runs.setdefault(run_id, refusal)
            _keep_latest(self._closed_runs)

    def _remember_run(self, run_id: str) -> None:
        self._runs[run_id] = None
        _keep_latest(self._runs)

    def forget_run(self, run_id: str) -> None:
        """A run ended; its id will not come again."""
        self._closed_runs.pop(run_id, None)
        self._runs.pop(run_id, None)

    def settle(self, opened: OpenCall, outcome: Outcome) -> Entry | None:
        """Price an outcome, commit it, then raise if something must be said.

        Returns:
            The entry, or None when the ledger could not be written: then it is spooled, loudly, and written by key at
            the next call.

        Raises:
            BudgetExceeded: With `at_limit="raise"`, after the commit, when this call crossed its limit. The response
                is on it.
            UsageMissing: With `on_missing_usage="raise"`, after the commit.
        """
        posting = book_outcome(
            opened.booked_as, outcome, opened.admission, self.prices, self.policy, store_content=self.store_content
        )
        if (
            posting.status == "unpriced"
            and not isinstance(self.policy.on_unpriced, int)
            and not opened.admission.held_pico
        ):
            self._unpriced.add((opened.call.provider, opened.call.model))
        keys = tuple(want.key for want in opened.admission.wants)
        scopes = opened.scopes
        try:
            settled = self.ledger.settle(posting, keys=keys, scopes=scopes)
        except LedgerError as error:
            self._spool.add(posting.call.id, lambda: self.ledger.settle(posting, keys=keys, scopes=scopes))
            log.error(
                "The cost of a call could not be written and is kept in memory until the next call: %s", error.message
            )
            return None
        if posting.usage is not None and posting.status in {"priced", "reported"} and settled.fresh:
            self._samples.learn(opened.call, posting.usage)
        if settled.fresh:
            self._emit(CallSettled(entry=settled.entry))
        crossing = self._watch.after(opened.call, opened.admission, opened.hold, settled, outcome.response)
        if crossing is not None:
            raise crossing
        counted = posting.usage is not None and posting.usage.reader == "counted"
        if counted and outcome.kind == "answer" and self.on_missing_usage == "raise":
            raise UsageMissing(
                f"The answer of {opened.call.model!r} carried no usage, and on_missing_usage is 'raise'. The call is "
                "booked as estimated. For OpenAI streams set stream_usage=True on the model.",
                entry=settled.entry,
                response=outcome.response,
            )
        return settled.entry

    def release(self, opened: OpenCall, reason: str) -> None:
        """Give a call's holds back: it failed before anything was billed."""
        try:
            self.ledger.release(opened.booked_as.key)
        except LedgerError as error:
            # If it cannot be written later either it is swept as unknown: wrong on the safe side, and visible.
            self._spool.add(opened.call.id, lambda: self.ledger.release(opened.booked_as.key))
            log.error("A hold could not be released and is tried again at the next call: %s", error.message)
            return
        self._emit(CallReleased(call=opened.call, reason=reason))

    def charge(
        self,
        usd: str | Decimal,
        *,
        name: str,
        user: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> Entry | None:
        """Book money that was spent beyond model calls: a search, a download, an hour of a machine.

        It is on the ledger under every budget of this meter that applies, and of the `track()` blocks around that use
        this meter. Nothing is refused: the money is spent; the next start is. A tool that should be refused before it
        spends has a price: `prices={"tool/NAME": Price(request="0.008")}`.

        Args:
            usd: USD, as a decimal string or `Decimal`, more than 0.
            name: What it was for.
            user: Whose it is; None for the block's user.
            run: Run id it belongs to, where there is no block around.
            metadata: More keys for `by` and reports.

        Returns:
            The entry, or None when the ledger could not be written: see `settle`.

        Raises:
            ConfigError: No positive amount, or the meter was closed.
            BudgetExceeded: A budget with `at_limit="raise"` was crossed; it is booked.
        """
        call = charge_call("charge", name, who_around(current_blocks(), user=user, run=run, metadata=metadata))
        return self.book_spent(call, spent(usd))

    def book_spent(
        self, call: Call, outcome: Outcome, *, extra: Sequence[Attached] = (), scopes: Sequence[str] = ()
    ) -> Entry | None:
        """Book what was spent already, whatever is left: see `charge`. `track()` blocks around it count it too."""
        if self._shut:
            raise ConfigError("This meter was closed; a charge after close() would not be counted. Make a new one.")
        around = current_blocks()
        blocks = [block for block in around if block.meter is self]
        for block in blocks:
            block.note_call()
        self.replay()
        budgets = (*self._attached, *extra, *(item for block in blocks for item in block.attached))
        admission = admit(call, budgets, self.prices, self.policy, lambda _: Learned(), sent=True)
        ids = self._scopes((*scopes, *(block.id for block in blocks)))
        try:
            return self.settle(OpenCall(call=call, admission=admission, hold=None, scopes=ids), outcome)
        except BudgetExceeded as crossing:
            if not close_block(around, crossing) and call.who.run_id is not None and call.who.root_seen:
                self.close_run(call.who.run_id, crossing)
            raise

    # -- reading

    def entries(
        self, *, run: str | None = None, since: datetime | None = None, scope: str | None = None
    ) -> Iterator[Entry]:
        """Entries of the whole ledger in order of booking.

        Args:
            run: Only this run's.
            since: Only those booked at or after this aware datetime.
            scope: Only those of this handler, `track()` block or meter id.
        """
        return self.ledger.entries(Query(run=run, since=since, scope=scope))

    def summary(self, *, run: str | None = None, since: datetime | None = None) -> Summary:
        """What this meter saw in this process; with `run` or `since`, what the whole ledger has of them."""
        self.replay()
        everything = run is not None or since is not None
        return summarise(self.entries(run=run, since=since, scope=None if everything else self.id))

    def close(self) -> None:
        """Write what is still spooled and close the ledger. Later starts raise `ConfigError`."""
        if self._shut:
            return
        self.replay()
        self._shut = True
        self.ledger.close()

    # -- small parts

    def replay(self) -> None:
        """Write what could not be written before; by key, so that nothing is written twice."""
        self._spool.replay()

    def _note_unpriced(self, call: Call, admission: Admission) -> None:
        stops = next((a.budget for a in admission.attached if a.budget.unit == "usd" and a.budget.stops), None)
        if stops is not None and (call.provider, call.model) in self._unpriced:
            raise PriceUnknown(
                messages.price_unknown(call, "its last answer could not be priced and nothing was held for it"),
                budget=stops,
            )
        if admission.unpriced is not None:
            self.say(
                f"unpriced {call.provider} {call.model}",
                messages.recorded_unpriced(call, None if admission.card is None else admission.unpriced),
                every_s=float("inf"),
            )

    def say(self, what: str, text: str, *, every_s: float = _WARN_EVERY_S) -> None:
        """Warn, at most once in a while for each kind of thing."""
        now = time.monotonic()
        with self._lock:
            last = self._said.get(what)
            if last is not None and now - last < every_s:
                return
            self._said[what] = now
        log.warning("%s", text)

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                # A listener must not change what is booked or refused; it is loud and otherwise ignored.
                log.exception("A listener failed on %s; no number changed.", type(event).__name__)


def _keep_latest(runs: OrderedDict[str, Any]) -> None:
    while len(runs) > _RUNS:  # runs whose end was not seen
        runs.popitem(last=False)


def _budgets(budgets: Sequence[Budget] | Budget) -> tuple[Budget, ...]:
    items = (budgets,) if isinstance(budgets, Budget) else tuple(budgets)
    for item in items:
        if not isinstance(item, Budget):
            raise ConfigError(f"A Budget is expected, not {item!r}.")
    names = [item.name for item in items if item.name is not None]
    if len(names) != len(set(names)):
        raise ConfigError(f"Two budgets of one meter have the same name: {sorted(names)}.")
    return items
