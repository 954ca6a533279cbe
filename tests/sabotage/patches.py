"""The sabotages: small patches by exact text, each with the test that must go red."""

from __future__ import annotations

from tests.sabotage.clients import CLIENTS
from tests.sabotage.llama import LLAMA
from tests.sabotage.prices import PRICES
from tests.sabotage.sabotage import Sabotage

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
RECORDINGS = "tests/recordings/test_recordings.py"
PLAYED = RECORDINGS + "::TestLangChain::test_the_ledger_has_what_was_billed"
CHARGES = "tests/flow/test_charges.py"
METERED = "tests/flow/test_metered.py"
CARRY = "tests/flow/test_carry.py"
CONVERGENCE = "tests/flow/test_convergence.py"
NEWCOMER = "tests/flow/test_newcomer.py"
DEPLOYMENTS = "tests/flow/test_deployments.py"
OWN_PRICES = "tests/laws/test_own_prices.py"
REPRICE = "tests/flow/test_reprice.py"
BOOKS = "tests/docs/test_books_cli.py"


def trap(name: str) -> str:
    """The node id of a case of tests/flow/trap_table.py."""
    return f"tests/flow/test_traps.py::test_a_trap_ends_on_the_books[{name}]"


SABOTAGES = (
    *LLAMA,
    *CLIENTS,
    *PRICES,
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
        "class-accepted",
        "the handler's class as a callback is skipped like a handler that ignores everything",
        NEWCOMER + "::test_the_class_instead_of_an_instance_is_refused",
        (("langchain/attached.py", "        if instance is None and owner is not None:\n", "        if False:\n"),),
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
                "        with self._connection.write(full=self._full) as conn:\n            return self._close",
                "        self._connection.settling = True\n        with self._connection.write(full=self._full) as conn:\n            return self._close",
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
        (("meter.py", "            self.ledger.release(opened.booked_as.key)\n", "            pass\n"),),
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
                "        runs = current_blocks()\n        around",
                '        import os\n        if os.environ.get("PYTEST_CURRENT_TEST"):\n            return\n        runs = current_blocks()\n        around',
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
                '        key = f"{posting.call.kind}:{posting.call.id}"\n',
                '        import uuid\n        key = f"{posting.call.kind}:{posting.call.id}:{uuid.uuid4()}"\n',
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
        (("admission.py", 'and policy.on_unpriced == "refuse" and not sent:', "and False:"),),
    ),
    Sabotage(
        "output-rate-forgotten",
        "a chat model whose price has no output is sent and held like an embedding",
        NEWCOMER + "::test_a_chat_model_whose_price_is_not_whole_is_refused",
        (
            (
                "admission.py",
                "lacks = card.lacks(output=call.request.output) if card is not None else ()",
                "lacks: tuple[str, ...] = ()",
            ),
        ),
    ),
    Sabotage(
        "priced-part-lost",
        "of an unpriced answer the part that has a price is not booked",
        NEWCOMER + "::test_of_an_unpriced_answer_at_least_the_priced_part_is_booked",
        (
            (
                "booking.py",
                "posting = replace(posting, booked_pico=_allowed(policy, cost.part_pico), keep_hold=True)",
                "posting = replace(posting, booked_pico=_allowed(policy), keep_hold=True)",
            ),
            (
                "admission.py",
                "max(reserved, policy.on_unpriced, estimate.usd_pico or 0)",
                "max(reserved, policy.on_unpriced)",
            ),
        ),
    ),
    Sabotage(
        "wal-left-out",
        "a report of a ledger whose WAL this user cannot read leaves out what is in it",
        "tests/crash/test_processes.py::test_a_wal_that_cannot_be_read_is_not_left_out",
        (("ledger/readonly.py", "            if not self._unused():\n", "            if False:\n"),),
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
                '        return None if usage is None else usage.with_units(_tool_units(message))\n    raw = None if last_chunk_usage is not None else metadata.get("usage")',
                '        return None if usage is None else usage.with_units({k: v * (choices - 1) for k, v in usage.buckets.items()})\n    raw = None if last_chunk_usage is not None else metadata.get("usage")',
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
                "http_errors.py",
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
        (("inflight.py", "is not None and live.mark is not mark:", "is not None and False:"),),
    ),
    Sabotage(
        "schema-not-counted",
        "a pydantic schema is not in the worst case",
        SLIPS,
        (
            (
                "asked.py",
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
        "webhook-releases",
        "another handler's HTTP error in the middle of a stream gives the hold back",
        trap("3.5: another handler's HTTP 500 at token 1, sync"),
        (("langchain/failures.py", "    foreign = _raised_by_a_handler(error)\n", "    foreign = False\n"),),
    ),
    Sabotage(
        "begun-forgotten",
        "an error after the first chunks is judged as if nothing had come",
        SLIPS + "::test_a_status_after_chunks_is_no_answer_of_the_provider",
        (
            (
                "langchain/failures.py",
                "    begun = foreign or last_chunk_usage is not None or _has_chunks(result)\n",
                "    begun = foreign\n",
            ),
        ),
    ),
    Sabotage(
        "stream-kept-open",
        "the watch keeps a stream alive, so nothing ever closes it",
        trap("3.5: with_fallbacks, left at the first chunk, async"),
        (("langchain/tasks.py", "        return weakref.ref(task)\n", "        return lambda: task\n"),),
    ),
    Sabotage(
        "cancelled-unwatched",
        "a cancelled call's hold stays until it expires",
        trap("7: agenerate of 3 cancelled"),
        (
            ("langchain/tasks.py", "            self._lost(list(left))\n", "            pass\n"),
            ("langchain/tasks.py", "            self._lost([call_id])\n", "            pass\n"),
        ),
    ),
    Sabotage(
        "late-end-dropped",
        "an answer that comes after its run ended is not booked",
        trap("7: late end after the root's error"),
        (("langchain/capture.py", " or self._late.pop(str(run_id), None)\n", "\n"),),
    ),
    Sabotage(
        "run-id-claimed-late",
        "calls that start at once with one run id are all admitted, and all but one of their answers are not booked",
        "tests/flow/test_slips.py::test_one_run_id_twice_at_once_in_one_handler_is_refused_and_leaves_nothing",
        (("langchain/capture.py", " or run_id in self._starting", ""),),
    ),
    Sabotage(
        "paid-error-guessed",
        "a paid answer that fails to parse is not priced from its body",
        trap("6: truncated structured answer, sync"),
        (("langchain/failures.py", "        if paid is not None:\n", "        if False:\n"),),
    ),
    Sabotage(
        "batch-charged-per-prompt",
        "every prompt of a text batch is booked",
        trap("4: OpenAI(LLM).batch of 3, sync"),
        (
            (
                "langchain/extract.py",
                """llm_output.get("token_usage") == {}\n""",
                """llm_output.get("token_usage") == 0\n""",
            ),
        ),
    ),
    Sabotage(
        "durable-per-process",
        "a durable budget is each process's own",
        PARALLEL + "::test_processes_share_one_durable_budget",
        (
            (
                "budget.py",
                "        key = str(budget.name) if budget.durable else",
                "        key = str(budget.name) if False else",
            ),
        ),
    ),
    Sabotage(
        "learning-off",
        "holds never learn, so a budget admits a fifth of what it could",
        CONVERGENCE,
        (("meter.py", "            self._samples.learn(opened.call, posting.usage)\n", "            pass\n"),),
    ),
    Sabotage(
        "fee-not-held",
        "a tool's fee is not held while it runs: tools at once all pass",
        CHARGES + "::test_a_tools_fee_is_held_while_it_runs_and_booked_at_its_end",
        (
            (
                "admission.py",
                '    held_pico = 0 if policy.reserve == "none" else estimate.usd_pico or 0\n',
                "    held_pico = 0\n",
            ),
        ),
    ),
    Sabotage(
        "fee-given-back",
        "a tool that failed gives its fee back",
        CHARGES + "::test_a_tool_that_raises_is_booked_at_its_fee_as_unknown",
        (
            (
                "langchain/nodes.py",
                '                finish(opened, meter, Outcome(kind="unknown", reason=reason))\n',
                "                finish(opened, meter, None, reason)\n",
            ),
        ),
    ),
    Sabotage(
        "fee-renamed-away",
        "a tool with a run name is free",
        CHARGES + "::test_a_tool_keeps_its_price_under_another_run_name",
        (("langchain/nodes.py", '((serialized or {}).get("name"), name), node', "(name,), node"),),
    ),
    Sabotage(
        "late-fee-dropped",
        "a tool that ends after its run stays unknown",
        CHARGES + "::test_a_tool_that_goes_on_after_its_run_was_cancelled_is_booked_at_once_and_corrected",
        (("langchain/nodes.py", "                self._late_fees[key] = fee\n", "                pass\n"),),
    ),
    Sabotage(
        "charge-zero",
        "what the user's code says it spent is booked at nothing",
        CHARGES + "::test_a_charge_outside_and_inside_blocks",
        (("booking.py", "cost=cost, booked_pico=outcome.stated_pico)", "cost=cost, booked_pico=0)"),),
    ),
    Sabotage(
        "charge-outside-blocks",
        "a charge does not count in the blocks around it",
        CHARGES + "::test_a_charge_outside_and_inside_blocks",
        (
            (
                "meter.py",
                "        blocks = [block for block in around if block.meter is self]\n",
                "        blocks = []\n",
            ),
        ),
    ),
    Sabotage(
        "lost-fee-is-a-call",
        "the fee of a process that died is booked as a call",
        CONTRACT + "::test_the_hold_of_a_charge_is_swept_as_a_charge",
        (("ledger/rows.py", '    kind = data.get("kind", "call")\n', '    kind = "call"\n'),),
    ),
    Sabotage(
        "embeddings-usage-dropped",
        "embeddings are guessed though the provider said what they took",
        METERED + "::test_documents_in_chunks_are_one_entry_for_each_request",
        (("langchain/metered.py", 'openai.read(body.get("usage") or {}), body', "None, body"),),
    ),
    Sabotage(
        "embeddings-unseen",
        "the handler of a chain does not count its embeddings",
        METERED + "::test_the_handler_of_the_chain_counts_it",
        (("langchain/metered.py", "(*self._handlers, *around.handlers)", "self._handlers"),),
    ),
    Sabotage(
        "wrapped-outside",
        "a wrapped stream is consumed outside its block",
        CARRY + "::test_a_generator_that_makes_calls_is_limited_after_its_block",
        (("carry.py", "with entered(self._around, self._refusals):", "with entered((), self._refusals):"),),
    ),
    Sabotage(
        "inner-block-lost",
        "a block opened inside a wrapped generator is gone at its next step",
        CARRY + "::test_a_block_opened_inside_a_wrapped_generator_lasts_over_its_steps",
        (("carry.py", "                self._around = current_blocks()\n", ""),),
    ),
    Sabotage(
        "bound-outside",
        "a coroutine of a bound function is awaited outside its block",
        CARRY + "::test_a_bound_coroutine_function_counts_in_a_loop_of_another_thread",
        (("carry.py", "return _inside(blocks, made) if inspect.iscoroutine(made) else made", "return made"),),
    ),
    Sabotage(
        "others-untold",
        "what one handler raises at the end leaves the call open at the next",
        SLIPS + "::test_a_raise_at_the_end_leaves_no_hold_open_on_another_ledger",
        (("inflight.py", "            _end_at_others(opened.call.id, live, outcome)\n", "            pass\n"),),
    ),
    Sabotage(
        "flex-keys-plain",
        "flex answers lose their cached input and reasoning: only the plain keys are read",
        "tests/laws/test_losses.py::test_a_tiers_renamed_keys_are_read",
        (("langchain/extract.py", "counts.read(source, prefix + key, key) or 0", "counts.read(source, key) or 0"),),
    ),
    Sabotage(
        "writes-billed-twice",
        "cache writes stand under fresh input too",
        PLAYED + "[ChatOpenAI-single-openrouter/responses-gpt-5-6-sol-openrouter-responses-prompt-cache-e2e]",
        (
            (
                "langchain/extract.py",
                "(cache_read, written, five_minutes",
                "(cache_read, five_minutes",
            ),
        ),
    ),
    Sabotage(
        "thoughts-on-top-dropped",
        "Gemini's thoughts behind OpenAI's wire format, outside completion_tokens, are not billed",
        PLAYED
        + "[ChatOpenAI-single-google-gemini/chat-completions-gemini-2-5-pro-preview-05-06-compatible-api-with-tool-calls-without-id]",
        (("usage/openai.py", "        on_top = total - prompt - completion\n", "        on_top = 0\n"),),
    ),
    Sabotage(
        "search-fees-of-streams-lost",
        "web searches in an Anthropic stream cost nothing",
        PLAYED + "[ChatAnthropic-single-anthropic/messages-claude-sonnet-4-0-anthropic-claude-sonnet-4-0]",
        (
            (
                "langchain/extract.py",
                '        units["web_search"] = units.get("web_search", 0) + searches\n',
                "        pass\n",
            ),
        ),
    ),
    Sabotage(
        "compaction-priced-without",
        "a stream whose compaction is missing is booked as if its bill were whole",
        PLAYED
        + "[ChatAnthropic-single-anthropic/messages-claude-sonnet-4-6-anthropic-compaction-usage-with-cache-streaming]",
        (
            (
                "langchain/extract.py",
                'short = usage is not None and "compaction_unseen" in usage.flags',
                "short = False",
            ),
        ),
    ),
    Sabotage(
        "cut-and-free",
        "an answer that the client failed to read gives its hold back",
        PLAYED + "[AzureChatOpenAI-single-azure-openai/chat-completions-openllmetry-testing-chat-content-filtering]",
        (
            (
                "langchain/failures.py",
                '    return Failure(outcome=Outcome(kind="unknown", reason=reason), reason=reason)\n',
                "    return Failure(outcome=None, reason=reason)\n",
            ),
        ),
    ),
    Sabotage(
        "compaction-writes-dropped",
        "what a compaction wrote to the cache is not billed",
        READERS + "::test_anthropic_by_hand",
        (
            (
                "usage/anthropic.py",
                '    written = counts.read(entry, "cache_creation_input_tokens")',
                "    written = None",
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
                'part = counted or outcome.kind == "cut"',
                "part = counted",
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
    Sabotage(
        "cut-unbounded",
        "a stream closed early is booked at what was seen where nothing was held: fifty on a budget for five",
        "tests/laws/test_booking.py::test_a_cut_answer_that_no_hold_bounds_is_booked_at_no_less_than_its_estimate",
        (
            (
                "booking.py",
                'admission, policy) if outcome.kind == "cut" else posting',
                "admission, policy) if False else posting",
            ),
        ),
    ),
    Sabotage(
        "correction-on-top",
        "a correction is added to the one before it",
        CONTRACT + "::test_corrections_follow_each_other",
        (
            (
                "ledger/statements.py",
                "WHERE id = ?1 OR adjusts = ?1 ORDER BY id",
                "WHERE id = ?1 ORDER BY id",
            ),
            (
                "ledger/adjusting.py",
                "key=f\"adjust:{root['key']}:{len(books.rows)}\"",
                "key=f\"adjust:{root['key']}:{correction.at}:{pico}\"",
            ),
        ),
    ),
    Sabotage(
        "correction-off-the-balance",
        "a correction changes reports and leaves the balances",
        CONTRACT + "::test_a_correction_makes_the_books_as_if_it_had_been_booked_so",
        (
            (
                "ledger/adjusting.py",
                "            added = amount - self.now.amounts[balance]\n",
                '            added = 0 if key.startswith("adjust:") else amount - self.now.amounts[balance]\n',
            ),
        ),
    ),
    Sabotage(
        "correction-frees-the-hold",
        "another price of a cut answer gives back what was held for the part nobody saw",
        REPRICE + "::test_a_cut_answer_keeps_its_hold",
        (("reprice.py", 'keep_hold=finding.status == "estimated" and not call.seen_whole', "keep_hold=False"),),
    ),
    Sabotage(
        "terms-forgotten",
        "an entry forgets its service tier, and is priced again at the standard rate",
        REPRICE + "::test_an_unknown_tier_stays_unpriced_until_it_has_a_price",
        (
            (
                "ledger/rows.py",
                'None if fields["terms"] is None else _terms_json(fields["terms"])',
                'None if fields["terms"] is None else "{}"',
            ),
        ),
    ),
    Sabotage(
        "negotiated-price-lost",
        "reprice replaces a price of the user's own by the list",
        REPRICE + "::test_what_is_not_ours_to_price_is_left",
        (("reprice.py", 'if booked.get("kind") == "user" and not declared:', "if False:"),),
    ),
    Sabotage(
        "searches-forgotten",
        "reading a usage again forgets the searches that were counted in the content",
        REPRICE + "::test_searches_that_the_usage_object_does_not_show_are_not_forgotten",
        (
            (
                "reprice.py",
                "replace(found.with_units(units), terms=terms, flags=flags)",
                "replace(found, terms=terms, flags=flags)",
            ),
        ),
    ),
    Sabotage(
        "view-counts-hold-and-cost",
        "the file's views add what was held for a call and the price that was found for it",
        CONTRACT + "::test_a_missing_price_that_is_found_replaces_what_was_held",
        (
            (
                "ledger/schema.py",
                "THEN 0 ELSE COALESCE((SELECT SUM(old.booked_pico) {before}), 0) END",
                "THEN 0 ELSE 0 * COALESCE((SELECT SUM(old.booked_pico) {before}), 0) END",
            ),
        ),
    ),
    Sabotage(
        "what-if-zero",
        "a call that the other model has no price for is compared as one that costs nothing",
        BOOKS + "::test_what_if_leaves_nothing_out_silently",
        (
            (
                "what_if.py",
                "    return cost.pico, None if cost.pico is not None else cost.reason\n",
                "    return cost.pico or 0, None\n",
            ),
        ),
    ),
    Sabotage(
        "cents-as-dollars",
        "an amount in cents is taken for one in dollars",
        BOOKS + "::test_reconcile_anthropic_cost_report_in_cents",
        (("exports.py", "bottom *= 100 if cents else 1", "bottom *= 1"),),
    ),
    Sabotage(
        "invoice-through-float",
        "an export's amounts pass through a float",
        BOOKS + "::test_amounts_of_an_export_pass_through_no_float",
        (("exports.py", "parse_float=Decimal", "parse_float=float"),),
    ),
    Sabotage(
        "deployment-by-its-answer",
        "what a deployment costs is looked up by the model's name in the answer alone",
        DEPLOYMENTS,
        (
            (
                "pricing/book.py",
                "name, own = requested, self._declared(provider, requested)",
                "name, own = requested, None",
            ),
        ),
    ),
    Sabotage(
        "deployment-without-factor",
        "the factor of a SameAs is forgotten",
        DEPLOYMENTS,
        (("pricing/book.py", "        card = times(card, alias.factor, alias.where)\n", ""),),
    ),
    Sabotage(
        "discount-on-fees",
        "a discount lowers fees by the use too",
        OWN_PRICES,
        (("pricing/own.py", "rate if name in _BY_USE else rate.scaled(factor)", "rate.scaled(factor)"),),
    ),
    Sabotage(
        "discount-on-a-bound",
        "a discount lowers the worst case of a provider that states its costs",
        OWN_PRICES,
        (("pricing/book.py", "        if provider in REPORTING:", "        if False:"),),
    ),
    Sabotage(
        "long-one-late",
        "a price from a threshold on starts one token late",
        OWN_PRICES,
        (("pricing/own.py", "found.append((tokens - less,", "found.append((tokens,"),),
    ),
    Sabotage(
        "fetched-below-nothing",
        "a fetched price list may have prices below 0",
        "tests/laws/test_snapshot.py",
        (("pricing/snapshot.py", "if not amount.is_finite() or amount < 0:", "if not amount.is_finite():"),),
    ),
    Sabotage(
        "discount-taken-back",
        "reprice books a discount back to the list price",
        "tests/flow/test_reprice.py",
        (("reprice.py", '    if _of_provider(booked.get("factors") or ()) and not', "    if False and not"),),
    ),
    Sabotage(
        "hold-given-back",
        "a kept hold is given back by a price that goes up and down again",
        REPRICE + "::test_a_hold_that_was_kept_is_not_given_back_by_a_price_that_goes_up_and_down",
        (("ledger/adjusting.py", "self.first = _sums(self.rows[:priced])", "self.first = self.now"),),
    ),
    Sabotage(
        "allowance-kept",
        "a whole answer that gets a price stays booked at what was allowed for want of one",
        REPRICE + "::test_a_whole_answer_that_gets_a_price_costs_what_it_costs",
        (("reprice.py", "and not call.seen_whole,", 'and (call.status == "unpriced" or not call.seen_whole),'),),
    ),
    Sabotage(
        "late-model-forgotten",
        "the model that answered late is forgotten by its first correction, and the second bills another one",
        REPRICE + "::test_a_late_answer_of_another_model_stays_that_models",
        (
            (
                "standing.py",
                "for entry in reversed(history) if entry.response_model",
                "for entry in history[:1] if entry.response_model",
            ),
        ),
    ),
    Sabotage(
        "counted-as-asked",
        "an answer without usage is estimated as the model that was asked for and not as the one that answered",
        "tests/laws/test_booking.py::test_what_is_counted_is_priced_as_the_model_that_answered",
        (("booking.py", "model=outcome.response_model or call.model,", "model=call.model,"),),
    ),
)
