"""The ledger against a model that shares nothing with it: dictionaries, written from DESIGN 3 and 6 and facts 3.4.

Two ledgers (two connections) on one file take turns. After every step a third, plain connection reads the file, and
every balance, hold and entry is compared with what the model expects: not sums with sums.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ai_budget_callbacks.ledger import NoRoom, open_ledger
from ai_budget_callbacks.usage import Usage
from tests.support.books import HOUR, NOW, claim, correction, key, posting, raw, read_books, want, wrong_in

# name: (unit, limit, whether it stops)
BUDGETS = {
    "run": ("usd", 40, True),
    "month": ("usd", 100, True),
    "words": ("tokens", 60, True),
    "count": ("calls", 4, True),
    "warn": ("usd", 10, False),
}
SCOPES = ("inner", "outer", "meter")
AMOUNT = st.integers(0, 45)
EDGES = st.sampled_from(["exact", "one less", "one more", "some", "some", "zero", "floor", "lone"])


class Model:
    """What the books must say, by the prose."""

    def __init__(self):
        self.spent = {}  # balance key: amount
        self.held = {}
        self.holds = {}  # call: {"amounts", "pico", "tokens", "expires", "scopes"}
        self.entries = {}  # entry key: {"status", "amounts", "scopes", "held"}

    def room(self, balance):
        """What is free on a balance that stops."""
        return BUDGETS[balance.budget][1] - self.spent.get(balance, 0) - self.held.get(balance, 0)

    def admitted(self, wants):
        """{balance: amount} a claim is granted, or None: one balance without room refuses the whole."""
        granted = {}
        for w in wants:
            if w.limit is None:
                granted[w.key] = w.amount
                continue
            free = w.limit - self.spent.get(w.key, 0) - self.held.get(w.key, 0)
            if free <= 0:
                return None
            if w.amount <= free:
                granted[w.key] = w.amount
            elif w.floor is not None and self.held.get(w.key, 0) == 0 and w.floor <= free:
                granted[w.key] = free
            else:
                return None
        return granted

    def hold(self, granted):
        for balance, amount in granted.items():
            self.held[balance] = self.held.get(balance, 0) + amount
            self.spent.setdefault(balance, 0)

    def close(self, call):
        """Take a call's hold off its balances."""
        hold = self.holds.pop(call)
        for balance, amount in hold["amounts"].items():
            self.held[balance] -= amount
        return hold

    def history(self, entry_key):
        """An entry and its adjustments."""
        return [e for k, e in self.entries.items() if entry_key in (k, e["adjusts"])]

    def standing(self, entry_key):
        """What each balance counts of an entry by now."""
        rows = self.history(entry_key)
        return {balance: sum(row["amounts"][balance] for row in rows) for balance in rows[0]["amounts"]}

    def book(self, entry_key, status, amounts, scopes, held=None, adjusts=None):
        for balance, amount in amounts.items():
            self.spent[balance] = self.spent.get(balance, 0) + amount
            self.held.setdefault(balance, 0)
        self.entries[entry_key] = {
            "status": status, "amounts": amounts, "scopes": set(scopes), "held": held or {}, "adjusts": adjusts,
        }  # fmt: skip


def by_unit(balance, usd, tokens, calls):
    return {"usd": usd, "tokens": tokens, "calls": calls}[balance.unit]


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="ledger-machine-")
        path = Path(self.folder) / "spend.db"
        shutil.copyfile(template(), path)
        self.ledgers = [open_ledger(str(path)), open_ledger(str(path))]
        self.reader = raw(path)
        self.model = Model()
        self.now = NOW
        self.window, self.user = 0, "alice"
        self.number = 0
        self.rows = []  # every entry ever read: entries never change (I6)

    def teardown(self):
        for ledger in self.ledgers:
            assert ledger.verify() == []
            ledger.close()
        self.reader.close()
        shutil.rmtree(self.folder)

    # -- drawing

    def balances(self, names):
        return [
            key(name, BUDGETS[name][0], f"w{self.window}", f'["{self.user}"]' if name == "month" else "[]")
            for name in names
        ]

    def wants(self, names, edge, amount):
        wants = []
        for index, balance in enumerate(self.balances(names)):
            limit = BUDGETS[balance.budget][1]
            free = max(0, self.model.room(balance))
            asked, floor = amount, None
            if index == 0 or balance.unit != "usd":
                asked = {"exact": free, "one less": max(0, free - 1), "one more": free + 1, "zero": 0}.get(edge, amount)
            if edge == "floor":
                asked, floor = amount + free, max(0, free - amount % 3 + 1)
            if edge == "lone":
                asked, floor = free + 1 + amount, free
            wants.append(want(balance, asked, limit if BUDGETS[balance.budget][2] else None, floor))
        return wants

    def some(self, things, pick):
        return sorted(things)[pick % len(things)]

    # -- rules

    @initialize()
    def start(self):
        for ledger in self.ledgers:
            assert ledger.balances() == []

    names = st.lists(st.sampled_from(sorted(BUDGETS)), unique=True, max_size=4)
    which = st.integers(0, 1)
    pick = st.integers(0, 1_000)
    scopes = st.sets(st.sampled_from(SCOPES), max_size=2)

    @rule(which=which, names=names, edge=EDGES, amount=AMOUNT, scopes=scopes, guess=AMOUNT, ttl=st.integers(1, 5))
    def reserve(self, which, names, edge, amount, scopes, guess, ttl):
        self.number += 1
        self._claim(which, f"call-{self.number}", names, edge, amount, scopes, guess, ttl)

    @precondition(lambda self: self.model.holds)
    @rule(
        which=which,
        pick=pick,
        names=names,
        edge=EDGES,
        amount=AMOUNT,
        scopes=scopes,
        guess=AMOUNT,
        ttl=st.integers(1, 5),
    )
    def merge(self, which, pick, names, edge, amount, scopes, guess, ttl):
        self._claim(which, self.some(self.model.holds, pick), names, edge, amount, scopes, guess, ttl)

    @precondition(lambda self: self.number)
    @rule(which=which, pick=pick, names=names, edge=EDGES, amount=AMOUNT, scopes=scopes, guess=AMOUNT)
    def reserve_an_id_used_before(self, which, pick, names, edge, amount, scopes, guess):
        self._claim(which, f"call-{pick % self.number + 1}", names, edge, amount, scopes, guess, 1)

    def _claim(self, which, asked, names, edge, amount, scopes, guess, ttl):
        # an id that is booked already was used again: this is a call of its own
        call, again = asked, 2
        while call not in self.model.holds and f"call:{call}" in self.model.entries:
            call, again = f"{asked}#{again}", again + 1
        wants = self.wants(names, edge, amount)
        had = self.model.holds.get(call)
        lacking = [w for w in wants if had is None or w.key not in had["amounts"]]
        granted = self.model.admitted(lacking)
        shared = [w for w in wants if had is not None and w.key in had["amounts"] and w.limit is not None]
        for w in shared:  # held already: nothing more is held, but each meter's own limit must still admit the call
            total = self.model.spent.get(w.key, 0) + self.model.held.get(w.key, 0)
            if total > w.limit or total - had["amounts"][w.key] >= w.limit:
                granted = None
        expires = self.now + ttl * HOUR
        pico = None if guess % 5 == 0 else guess
        record = claim(asked, *wants, scopes=tuple(sorted(scopes)), pico=pico, tokens=guess, expires=expires)
        try:
            hold = self.ledgers[which].reserve(record)
        except NoRoom as refusal:
            assert granted is None, f"{call} was refused although every balance had room: {wants}"
            assert refusal.spent == self.model.spent.get(refusal.want.key, 0), "the refusal misstates what was spent"
            assert refusal.held == self.model.held.get(refusal.want.key, 0), "the refusal misstates what is held"
            assert self.model.admitted([refusal.want]) is None, "the refusal names a balance that had room"
            return
        assert hold.call.id == call
        assert granted is not None, f"{call} was admitted although a balance had no room: {wants}"
        self.model.hold(granted)
        if had is None:
            self.model.holds[call] = {
                "amounts": granted, "pico": pico, "tokens": guess, "expires": expires, "scopes": scopes,
            }  # fmt: skip
        else:
            had["amounts"] |= granted
            had["pico"] = max((p for p in (had["pico"], pico) if p is not None), default=None)
            had["tokens"] = max(had["tokens"], guess)
            had["expires"] = max(had["expires"], expires)
            had["scopes"] |= scopes
        assert sorted(hold.amounts.values()) == sorted(self.model.holds[call]["amounts"].values())
        assert set(hold.scopes) == set(self.model.holds[call]["scopes"])
        for balance in granted:
            _, limit, stops = BUDGETS[balance.budget]
            total = self.model.spent[balance] + self.model.held[balance]
            assert not stops or total <= limit, f"admission took {balance.budget} past its limit"

    @precondition(lambda self: self.model.holds)
    @rule(
        which=which, pick=pick, usd=AMOUNT, tokens=AMOUNT, how=st.sampled_from(["priced", "estimated", "keep", "free"])
    )
    def settle(self, which, pick, usd, tokens, how):
        call = self.some(self.model.holds, pick)
        hold = self.model.close(call)
        usd, calls, status, keep = self._outcome(usd, how)
        record = posting(call, usd, tokens, status=status, calls=calls, keep=keep, at=self.now)
        amounts = {
            balance: max(by_unit(balance, usd, tokens, calls), held if keep else 0)
            for balance, held in hold["amounts"].items()
        }
        settled = self.ledgers[which].settle(record, keys=self.balances(["warn"]), scopes=["nobody"])
        assert settled.fresh, "the first settle of a call was taken for a duplicate"
        self.model.book(f"call:{call}", status, amounts, hold["scopes"])
        expected = sorted((amount, self.model.spent[balance]) for balance, amount in amounts.items())
        assert sorted(settled.moved.values()) == expected, "a settle misstates what it moved"

    @staticmethod
    def _outcome(usd, how):
        if how == "free":
            return 0, 0, "free", False
        return (usd + 1 if how == "priced" else usd), 1, ("priced" if how == "priced" else "estimated"), how == "keep"

    @rule(which=which, names=names, usd=AMOUNT, tokens=AMOUNT, scopes=scopes, charge=st.booleans())
    def settle_without_hold(self, which, names, usd, tokens, scopes, charge):
        self.number += 1
        call, kind, calls = f"call-{self.number}", "charge" if charge else "call", 0 if charge else 1
        balances = self.balances(names)
        record = posting(call, usd + 1, tokens, kind=kind, calls=calls, at=self.now)
        assert self.ledgers[which].settle(record, keys=balances, scopes=sorted(scopes)).fresh
        amounts = {balance: by_unit(balance, usd + 1, tokens, calls) for balance in balances}
        self.model.book(f"{kind}:{call}", "priced", amounts, scopes)

    @precondition(lambda self: any(k.startswith("call:") for k in self.model.entries))
    @rule(
        which=which,
        pick=pick,
        usd=AMOUNT,
        tokens=AMOUNT,
        how=st.sampled_from(["priced", "estimated", "keep", "free"]),
        lost=st.booleans(),
    )
    def settle_again(self, which, pick, usd, tokens, how, lost):
        """A duplicate changes nothing; the truth about a lost call makes the books as if it had come in time."""
        booked = [k for k in self.model.entries if k.startswith("call:")]
        unknown = [k for k in booked if self.model.entries[k]["status"] == "unknown"]
        entry_key = self.some(unknown if lost and unknown else booked, pick)
        call = entry_key.removeprefix("call:")
        earlier = self.model.entries[entry_key]
        usd, calls, status, keep = self._outcome(usd, how)
        record = posting(call, usd, tokens, status=status, calls=calls, keep=keep, at=self.now)
        settled = self.ledgers[which].settle(record, keys=self.balances(["warn"]))
        late = f"late:{call}"
        if earlier["status"] != "unknown" or late in self.model.entries:
            assert not settled.fresh, f"{call} was booked twice"
            return
        assert settled.fresh, f"the cost of {call} came late and was dropped"
        in_time = {
            balance: max(by_unit(balance, usd, tokens, calls), held if keep else 0)
            for balance, held in earlier["held"].items()
        }
        before = self.model.standing(entry_key)
        amounts = {balance: amount - before[balance] for balance, amount in in_time.items()}
        self.model.book(late, status, amounts, earlier["scopes"], adjusts=entry_key)

    @precondition(lambda self: any(e["adjusts"] is None for e in self.model.entries.values()))
    @rule(which=which, pick=pick, usd=AMOUNT, tokens=st.none() | AMOUNT, free=st.booleans(), again=st.booleans())
    def correct(self, which, pick, usd, tokens, free, again):
        """A correction makes the balances as if the entry had been booked so; the same one again changes nothing."""
        entry_key = self.some([k for k, e in self.model.entries.items() if e["adjusts"] is None], pick)
        earlier, before = self.model.entries[entry_key], self.model.standing(entry_key)
        ((entry_id,),) = self.reader.execute("SELECT id FROM entry WHERE key = ?", (entry_key,)).fetchall()
        pico, status = (0, "free") if free else (usd + 1, "priced")
        usage = None if tokens is None else Usage(buckets={"output_text": tokens + 1})
        record = correction(pico, status=status, at=self.now, usage=usage)
        truth = {
            balance: by_unit(balance, pico, amount if tokens is None else tokens + 1, amount)
            for balance, amount in before.items()
        }
        number = len(self.model.history(entry_key))
        settled = self.ledgers[which].adjust(entry_id, record)
        if settled.fresh:
            amounts = {balance: amount - before[balance] for balance, amount in truth.items()}
            self.model.book(f"adjust:{entry_key}:{number}", status, amounts, earlier["scopes"], adjusts=entry_key)
        else:
            assert (truth, status) == (before, self.model.history(entry_key)[-1]["status"]), "a correction was dropped"
        if again:
            assert not self.ledgers[1 - which].adjust(entry_id, record).fresh, "one correction moved the money twice"

    @rule(which=which, pick=pick)
    def release(self, which, pick):
        known = [f"call-{n}" for n in range(1, self.number + 2)]
        call = known[pick % len(known)]
        was_open = call in self.model.holds
        if was_open:
            self.model.close(call)
        assert self.ledgers[which].release(call) is was_open

    @rule(which=which, minutes=st.sampled_from([0, 60, 60, 119, 300]), again=st.booleans())
    def sweep(self, which, minutes, again):
        self.now += timedelta(minutes=minutes)
        expected = {}
        for call in [c for c, hold in self.model.holds.items() if hold["expires"] <= self.now]:
            hold = self.model.close(call)
            amounts = {
                balance: max(held, by_unit(balance, hold["pico"] or 0, hold["tokens"], 1))
                for balance, held in hold["amounts"].items()
            }
            self.model.book(f"call:{call}", "unknown", amounts, hold["scopes"], hold["amounts"])
            expected[call] = amounts
        swept = self.ledgers[which].sweep(self.now)
        assert {entry.call_id for entry in swept} == set(expected), "the wrong calls were given up as lost"
        assert all(entry.status == "unknown" and entry.cost_pico is None for entry in swept)
        if again:
            assert self.ledgers[1 - which].sweep(self.now) == [], "a second sweep charged a lost call again"

    @rule()
    def next_window(self):
        self.window += 1

    @rule()
    def next_user(self):
        self.user = "bob" if self.user == "alice" else "alice"

    # -- what holds after every step

    @invariant()
    def the_books_are_those_of_the_model(self):
        books = read_books(self.reader)
        used = {b: (spent, self.model.held.get(b, 0)) for b, spent in self.model.spent.items()}
        assert books["balances"] == used, "balances differ from the model"  # I1 and I2, by independent expectation
        assert books["holds"] == {c: hold["amounts"] for c, hold in self.model.holds.items()}, "holds differ"  # I5
        entries = {e["key"]: e for e in books["entries"]}
        assert len(entries) == len(books["entries"]), "an entry was written twice"  # I4
        assert {k: (e["status"], e["amounts"]) for k, e in entries.items()} == {
            k: (e["status"], e["amounts"]) for k, e in self.model.entries.items()
        }, "entries differ from the model"
        assert wrong_in(books) == []

    @invariant()
    def open_holds_remember_what_a_sweep_will_need(self):
        columns = "call_id, estimate_pico, estimate_tokens, expires_at"
        assert {
            call: (pico, tokens, datetime.fromisoformat(expires))
            for call, pico, tokens, expires in self.reader.execute(f"SELECT {columns} FROM hold")
        } == {c: (hold["pico"], hold["tokens"], hold["expires"]) for c, hold in self.model.holds.items()}

    @invariant()
    def entries_never_change_and_belong_to_their_scopes(self):
        rows = self.reader.execute("SELECT * FROM entry ORDER BY id").fetchall()
        assert rows[: len(self.rows)] == self.rows, "an entry was changed after it was written"
        self.rows = rows
        found = {}
        for entry_key, scope in self.reader.execute(
            "SELECT key, scope FROM entry_scope JOIN entry ON entry.id = entry_scope.entry"
        ):
            found.setdefault(entry_key, set()).add(scope)
        assert found == {k: e["scopes"] for k, e in self.model.entries.items() if e["scopes"]}

    @invariant()
    def a_balance_past_its_limit_refuses(self):
        """I9 at the edge itself: with nothing free even a hold of 0 is refused, and with 1 free it is not."""
        for balance, spent in list(self.model.spent.items()):
            _, limit, stops = BUDGETS[balance.budget]
            if stops and spent + self.model.held.get(balance, 0) == limit:
                try:
                    self.ledgers[0].reserve(claim("probe", want(balance, 0, limit)))
                except NoRoom:
                    continue
                raise AssertionError(f"{balance.budget} is used up and admitted a call")


_folder = tempfile.TemporaryDirectory(prefix="ledger-machine-")  # gone when the process ends


def template():
    """An empty ledger file, made once: migrations are not what is tested here."""
    path = Path(_folder.name) / "empty.db"
    if not path.exists():
        open_ledger(str(path)).close()
    return path


LedgerMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLedgerMachine = LedgerMachine.TestCase
