"""The sabotages: small patches by exact text, each with the test that must go red."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sabotage:
    """One way to break money silently.

    Attributes:
        name, what: What it does.
        test: Test file (or node id) that must go red within 20 seconds.
        edits: (file below ai_budget_callbacks/, text that stands there exactly once, replacement).
    """

    name: str
    what: str
    test: str
    edits: tuple[tuple[str, str, str], ...]

    def apply(self, tree: Path) -> None:
        for name, old, new in self.edits:
            path = tree / "ai_budget_callbacks" / name
            text = path.read_text()
            assert text.count(old) == 1, (
                f"{self.name}: {old!r} stands {text.count(old)} times in {name}; mend the patch"
            )
            path.write_text(text.replace(old, new))


FIRST = "tests/flow/test_first_call.py"
REFUSAL = "tests/flow/test_refusal.py"
OUTCOMES = "tests/flow/test_outcomes.py"
PARALLEL = "tests/flow/test_parallel.py"
GOLDENS = "tests/laws/test_goldens.py"
CONTRACT = "tests/contract/test_ledger.py"
BUDGET = "tests/laws/test_budget.py"
SLIPS = "tests/flow/test_slips.py"
READERS = "tests/laws/test_readers.py"
BOOKING = "tests/laws/test_booking.py"
METER = "tests/contract/test_meter.py"

SABOTAGES = (
    Sabotage(
        "cost-zero",
        "every cost is 0",
        FIRST,
        (
            ("pricing/card.py", "        pico += amount\n    fee =", "        pico += 0\n    fee ="),
            ("booking.py", 'if cost.status in {"priced", "reported"} and not cost.pico:', "if False:"),
            ("ledger/schema.py", "CHECK(status NOT IN ('priced', 'reported') OR kind <> 'call' OR cost_pico > 0),", ""),
        ),
    ),
    Sabotage(
        "price-zero",
        "output tokens cost nothing",
        GOLDENS,
        (
            (
                "pricing/catalogue.py",
                '    "output_text": ("output_mtok",),',
                '    "output_text": ("output_audio_mtok",),',
            ),
            (
                "pricing/card.py",
                "        if rate is None:\n",
                "        if rate is None and name == 'output_text':\n            continue\n        if rate is None:\n",
            ),
        ),
    ),
    Sabotage(
        "bucket-dropped",
        "reasoning tokens vanish",
        GOLDENS,
        (("usage/openai.py", '        counts.put("output_reasoning", reasoning)\n', ""),),
    ),
    Sabotage(
        "cached-as-fresh",
        "cached tokens are priced as fresh ones",
        FIRST + "::test_openai_cached_input_is_cheaper",
        (
            (
                "usage/openai.py",
                '    counts.put("cache_read", cached_text)',
                '    counts.put("input_uncached", cached_text)',
            ),
        ),
    ),
    Sabotage(
        "raise-error-forgotten",
        "the handler's exceptions are swallowed",
        REFUSAL,
        (("langchain/capture.py", "    raise_error = True\n", ""),),
    ),
    Sabotage(
        "start-ignored",
        "start events are ignored: nothing is checked before sending",
        REFUSAL,
        (
            (
                "langchain/capture.py",
                "        if not targets:\n            return\n",
                "        if True:\n            return\n",
            ),
        ),
    ),
    Sabotage(
        "settle-commits-nothing",
        "the settle is rolled back",
        FIRST,
        (
            (
                "ledger/connection.py",
                '                        yield conn\n                        conn.execute("COMMIT")',
                '                        yield conn\n                        conn.execute("ROLLBACK" if full is False and self.settling else "COMMIT")',
            ),
            (
                "ledger/connection.py",
                "        self._closed = False\n",
                "        self._closed = False\n        self.settling = False\n",
            ),
            (
                "ledger/sqlite.py",
                "        with self._connection.write(full=self._full) as conn:\n            return",
                "        self._connection.settling = True\n        with self._connection.write(full=self._full) as conn:\n            return",
            ),
        ),
    ),
    Sabotage(
        "balance-not-moved",
        "the entry is written and the balance stays",
        CONTRACT,
        (
            (
                "ledger/statements.py",
                'spent = spent + :added WHERE id = :id"\nRELEASE',
                'spent = spent + 0 * :added WHERE id = :id"\nRELEASE',
            ),
        ),
    ),
    Sabotage(
        "hold-never-released",
        "a failed call's hold stays for ever",
        OUTCOMES + "::test_an_http_error_costs_nothing",
        (("meter.py", "            self.ledger.release(opened.booked_as.id)\n", "            pass\n"),),
    ),
    Sabotage(
        "hold-released-twice",
        "closing a hold takes it off the balance twice",
        CONTRACT,
        (
            (
                "ledger/statements.py",
                "UPDATE balance SET held = held - :held, spent",
                "UPDATE balance SET held = MAX(held - 2 * :held, 0), spent",
            ),
        ),
    ),
    Sabotage(
        "comparison-turned",
        "the limit is compared the wrong way round",
        CONTRACT,
        (
            (
                "ledger/statements.py",
                "(spent + held < :lim AND spent + held + :amount <= :lim)",
                "(spent + held > :lim AND spent + held + :amount >= :lim)",
            ),
        ),
    ),
    Sabotage(
        "no-text-models",
        "the handler lacks on_llm_start: text models are not seen",
        FIRST,
        (("langchain/capture.py", "    def on_llm_start(", "    def on_llm_start_("),),
    ),
    Sabotage(
        "tracking-off",
        "an environment variable turns tracking off",
        FIRST,
        (
            (
                "langchain/capture.py",
                "        runs = current_runs()\n        targets",
                '        import os\n        if os.environ.get("PYTEST_CURRENT_TEST"):\n            return\n        runs = current_runs()\n        targets',
            ),
        ),
    ),
    Sabotage(
        "event-never-fired",
        "listeners are never told",
        OUTCOMES + "::test_what_settles_is_told_once",
        (("meter.py", "        for listener in self._listeners:\n", "        for listener in ():\n"),),
    ),
    Sabotage(
        "raised-before-commit",
        "the crossing is raised and the call is never booked",
        OUTCOMES + "::test_raise_at_the_limit_comes_after_the_commit_with_the_answer",
        (
            (
                "meter.py",
                "        try:\n            settled = self.ledger.settle(posting, keys=keys, scopes=scopes)\n",
                '        for item in opened.admission.attached:\n            if item.budget.at_limit == "raise" and (posting.booked_pico or 0) > item.budget.limit:\n                raise BudgetExceeded("too early", response=outcome.response)\n        try:\n            settled = self.ledger.settle(posting, keys=keys, scopes=scopes)\n',
            ),
        ),
    ),
    Sabotage(
        "duplicate-booked",
        "a second settle of one call is booked again",
        CONTRACT,
        (
            (
                "ledger/sqlite.py",
                '        key = f"{posting.kind}:{posting.call.id}"\n',
                '        import uuid\n        key = f"{posting.kind}:{posting.call.id}:{uuid.uuid4()}"\n',
            ),
        ),
    ),
    Sabotage(
        "window-never-rolls",
        "a new day goes on with yesterday's balance",
        BUDGET,
        (("budget.py", '        return f"{local:%Y-%m-%d}"', '        return f"{local:%Y-%m}"'),),
    ),
    Sabotage(
        "estimate-zero",
        "nothing is held before a call: parallel calls all pass",
        PARALLEL,
        (("admission.py", "    return estimate.usd_pico if priced else None\n", "    return 0\n"),),
    ),
    Sabotage(
        "unpriced-passes",
        "a model without a price is sent under a USD budget",
        OUTCOMES + "::test_a_model_without_a_price_is_refused_before_sending",
        (("admission.py", 'and policy.on_unpriced == "refuse":', 'and policy.on_unpriced == "never":'),),
    ),
    Sabotage(
        "missing-usage-free",
        "an answer without usage is booked at nothing",
        OUTCOMES + "::test_a_stream_without_usage_is_estimated",
        (
            (
                "booking.py",
                '    return replace(posting, status="estimated", cost=cost, booked_pico=cost.pico)',
                '    return replace(posting, status="free", cost=replace(cost, pico=0), booked_pico=0, booked_tokens=0)',
            ),
        ),
    ),
    Sabotage(
        "closed-stream-free",
        "a stream closed early gives its hold back",
        OUTCOMES,
        (
            (
                "langchain/failures.py",
                "    if seen or partial.usage is not None:\n",
                '    if seen or partial.usage is not None:\n        return Failure(outcome=None, reason="cut")\n    if seen:\n',
            ),
        ),
    ),
    Sabotage(
        "choices-summed",
        "n=2 is charged once for each choice",
        FIRST + "::test_two_choices_are_one_charge",
        (
            (
                "langchain/extract.py",
                '        return None if usage is None else usage.with_units(_tool_units(message))\n    raw = metadata.get("usage")',
                '        return None if usage is None else usage.with_units({k: v * (choices - 1) for k, v in usage.buckets.items()})\n    raw = metadata.get("usage")',
            ),
        ),
    ),
    Sabotage(
        "refusal-latch-lost",
        "a used-up balance admits a call that holds nothing",
        CONTRACT,
        (
            (
                "ledger/statements.py",
                "(spent + held < :lim AND spent + held + :amount <= :lim)",
                "(spent + held <= :lim AND spent + held + :amount <= :lim)",
            ),
        ),
    ),
    Sabotage(
        "tier-ignored",
        "priority is billed at the standard price",
        FIRST + "::test_the_tier_that_was_served_is_the_one_that_is_paid",
        (("pricing/catalogue.py", '        context["service_tier"] = tier\n', "        pass\n"),),
    ),
    Sabotage(
        "context-walked",
        "an unrelated error in the context releases a sent call",
        SLIPS,
        (
            (
                "langchain/failures.py",
                "        current = current.__cause__\n",
                "        current = current.__cause__ or current.__context__\n",
            ),
        ),
    ),
    Sabotage(
        "stricter-limit-ignored",
        "a second meter's limit on a shared balance is not checked",
        SLIPS,
        (
            (
                "ledger/sqlite.py",
                "            if balance in held:\n                _check_shared",
                "            if False:\n                _check_shared",
            ),
        ),
    ),
    Sabotage(
        "cache-mark-trusted",
        "a paid answer is free because its twin hit the cache",
        SLIPS,
        (("langchain/extract.py", '    if getattr(result, "llm_output", None):\n        return False\n', ""),),
    ),
    Sabotage(
        "run-id-shared",
        "calls at once under one run id become one entry",
        SLIPS,
        (("scope.py", "is not None and live.mark is not mark:", "is not None and False:"),),
    ),
    Sabotage(
        "schema-not-counted",
        "a pydantic schema is not in the worst case",
        SLIPS,
        (
            (
                "langchain/request.py",
                "    return made() if isinstance(value, type) and made is not None else value",
                '    return "" if isinstance(value, type) else value',
            ),
        ),
    ),
    Sabotage(
        "reentry",
        "a stream collected inside our transaction rolls it back",
        SLIPS,
        (("ledger/connection.py", "            if self._writing:\n", "            if False:\n"),),
    ),
    Sabotage(
        "compaction-writes-dropped",
        "what a compaction wrote to the cache is not billed",
        READERS + "::test_anthropic_by_hand",
        (
            (
                "usage/anthropic.py",
                '                counts.read(entry, "cache_creation_input_tokens"),',
                "                None,",
            ),
        ),
    ),
    Sabotage(
        "cached-prompt-billed-twice",
        "a prompt that is read and written to the last token is billed once more as fresh",
        READERS + "::test_openai_shape_by_hand",
        (
            (
                "usage/openai.py",
                "if cached + written > prompt >= max(cached, written):",
                "if cached + written >= prompt >= max(cached, written):",
            ),
        ),
    ),
    Sabotage(
        "cut-as-complete",
        "usage seen before a cut is booked as the whole",
        BOOKING + "::test_usage_seen_before_a_cut_is_a_lower_bound",
        (
            (
                "booking.py",
                'if cost.status != "free" and (counted or outcome.kind == "cut"):',
                'if cost.status != "free" and counted:',
            ),
        ),
    ),
    Sabotage(
        "asked-model-priced",
        "the model that was asked for is priced, not the one that answered",
        BOOKING + "::test_the_model_that_answered_is_priced_and_not_the_one_that_was_asked",
        (("booking.py", "        model=outcome.response_model or call.model,", "        model=call.model,"),),
    ),
    Sabotage(
        "spool-lost",
        "what could not be written is never written",
        METER + "::test_a_settle_that_cannot_be_written_is_kept_and_written_once",
        (
            (
                "meter.py",
                "            self._spool.add(posting.call.id, lambda: self.ledger.settle(posting, keys=keys, scopes=scopes))\n",
                "",
            ),
        ),
    ),
    Sabotage(
        "unpriced-forgotten",
        "a model whose answers cannot be priced and hold nothing is sent for ever",
        METER + "::test_a_model_whose_answer_could_not_be_priced_and_held_nothing_is_refused_from_then_on",
        (
            (
                "meter.py",
                "            self._unpriced.add((opened.call.provider, opened.call.model))",
                "            pass",
            ),
        ),
    ),
    Sabotage(
        "closed-run-goes-on",
        "a run that was refused goes on with whatever fits",
        METER + "::test_a_closed_run_is_refused_and_no_other",
        (("meter.py", "            raise closed.again()", "            return"),),
    ),
    Sabotage(
        "lost-holds-starve",
        "holds of dead calls refuse the living",
        METER + "::test_a_lost_hold_does_not_starve_the_living",
        (
            (
                "meter.py",
                "            self.ledger.sweep(datetime.now(UTC))  # holds of dead processes must not refuse the living\n",
                "",
            ),
        ),
    ),
)
