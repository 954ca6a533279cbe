"""Sabotages of the LlamaIndex adapter, and of what joins the reports of two frameworks."""

from __future__ import annotations

from tests.sabotage.sabotage import Sabotage

GATE = "tests/llama/test_gate.py::"
MIXED = "tests/llama/test_mixed.py::"
SLIPS = "tests/llama/test_slips_llama.py::"
ONCE = "tests/llama/test_entry_points.py::test_every_request_is_one_entry"
STOPPED = "tests/llama/test_entry_points.py::test_nothing_is_sent_once_a_budget_is_used_up"
GOOGLE = "tests/laws/test_google.py::"
LOSSES = "tests/laws/test_losses_llama_index.py::"
PLAYED = "tests/recordings/test_llama_index.py::TestLlamaIndex::test_the_ledger_has_what_was_billed"
INDEX = "llama_index/"

LLAMA = (
    Sabotage(
        "li-gate-last",
        "the gate stands behind other handlers: one that raises at the end loses the paid entry",
        GATE + "test_a_handler_that_raises_at_the_end_does_not_lose_the_entry",
        ((INDEX + "workarounds.py", "handlers.insert(0, gate)", "handlers.append(gate)"),),
    ),
    Sabotage(
        "li-replaced-manager",
        "a model whose manager an engine replaced is not limited any more",
        GATE + "test_a_gate_is_put_back_where_an_engine_replaced_the_manager",
        ((INDEX + "tracking.py", "gates = list(dict.fromkeys((*known[2], *gates)))", "pass"),),
    ),
    Sabotage(
        "li-nested-twice",
        "a request that two methods report is booked twice",
        ONCE + "[Anthropic complete-track()]",
        ((INDEX + "reports.py", "return None if report.has_inner else report", "return None"),),
    ),
    Sabotage(
        "li-nested-once",
        "two requests at once inside one method are booked as one",
        GATE + "test_a_model_that_asks_another_one_two_at_once_is_two_requests",
        ((INDEX + "reports.py", "return None if report.has_inner else report", "return report"),),
    ),
    Sabotage(
        "li-structured-billed",
        "structured_llm, which only wraps, is booked beside what it wraps",
        ONCE + "[as_structured_llm stream_chat-track()]",
        (
            (INDEX + "wrappers.py", '.get("class_name") == _STRUCTURED', '.get("class_name") == ""'),
            (INDEX + "wrappers.py", "owner in (CustomLLM, StructuredLLM)", "owner is CustomLLM"),
        ),
    ),
    Sabotage(
        "li-usage-not-asked-for",
        "OpenAI is not asked for the usage of a stream, which is then guessed",
        GATE + "test_what_the_server_says_of_a_stream_is_asked_for_where_openai_does_not_say",
        ((INDEX + "streams.py", 'given["stream_options"] = {"include_usage": True}', "pass"),),
    ),
    Sabotage(
        "li-unread-starves",
        "streams that are dropped unread keep their holds until the budget starves",
        GATE + "test_unread_streams_do_not_starve_a_budget",
        (
            (
                INDEX + "tracking.py",
                "            weakref.finalize(result, _unread, report, lazy).atexit = False",
                "            pass",
            ),
        ),
    ),
    Sabotage(
        "li-unread-free",
        "a stream that was sent when it was made and dropped unread costs nothing",
        GATE + "test_a_stream_that_is_dropped_unread_holds_nothing[Anthropic sends when made]",
        (
            (
                INDEX + "streams.py",
                "    return is_openai(instance) or any(",
                "    return True or any(",
            ),
        ),
    ),
    Sabotage(
        "li-cut-chunks-forgotten",
        "what was seen of a stream before it was cut is not kept",
        GATE + "test_a_task_cancelled_in_the_middle_of_a_stream_is_booked",
        ((INDEX + "tracking.py", "report.last = event.response", "pass"),),
    ),
    Sabotage(
        "li-cache-billed",
        "embeddings from the cache are billed",
        GATE + "test_embeddings_from_the_cache_are_free",
        (
            (
                INDEX + "request.py",
                "    if cache is None:\n        return texts\n",
                "    if True:\n        return texts\n",
            ),
        ),
    ),
    Sabotage(
        "li-batch-texts",
        "every request of an embedding batch is counted with the texts of all",
        GATE + "test_embeddings_are_counted_from_the_texts_of_each_request",
        ((INDEX + "request.py", "texts[first : first + size]", "texts"),),
    ),
    Sabotage(
        "li-batch-released",
        "of a batch of which one request failed the others, which are billed, are given back",
        GATE + "test_a_batch_of_which_one_request_fails_is_booked_as_unknown",
        (
            (
                INDEX + "tracking.py",
                "isinstance(span.instance, BaseLLM) or (isinstance(error, Refusal) and error.entry is None)",
                "True",
            ),
        ),
    ),
    Sabotage(
        "li-stopped-keeps-hold",
        "a call that another handler stopped keeps its hold",
        GATE + "test_a_handler_that_stops_a_call_leaves_no_hold",
        ((INDEX + "tracking.py", "        _drop(span, error)\n", "        pass\n"),),
    ),
    Sabotage(
        "li-native-structured-uncounted",
        "structured_predict of Anthropic, which no event reports, is not counted",
        ONCE + "[Anthropic structured_predict (native)-track()]",
        (
            (
                INDEX + "unmetered.py",
                "        span.method in _STRUCTURED\n        and",
                "        span.method in ()\n        and",
            ),
        ),
    ),
    Sabotage(
        "li-native-structured-sent",
        "a refused structured_predict of Anthropic is sent all the same",
        STOPPED + "[Anthropic structured_predict (native)-track()]",
        ((INDEX + "unmetered.py", "                refuse_prompt(prompt, _raise_here)", "                pass"),),
    ),
    Sabotage(
        "li-prompt-refuses-all",
        "a prompt that was refused once refuses everybody who uses it meanwhile",
        GATE + "test_a_refused_structured_call_does_not_stop_another_one_with_the_same_prompt",
        (
            (
                INDEX + "unmetered.py",
                "        if span.id in _refused:\n",
                "        if _refused:\n            raise next(iter(_refused.values()))[1]\n        if span.id in _refused:\n",
            ),
        ),
    ),
    Sabotage(
        "li-prompt-forgets",
        "a refused structured call is sent because another one with the same prompt ended before it began",
        GATE + "test_a_refused_structured_call_does_not_stop_another_one_with_the_same_prompt",
        (
            (
                INDEX + "tracking.py",
                "    admit_again(span)\n",
                "    from ai_budget_callbacks.llama_index.workarounds import take_back\n\n    'prompt' in span.arguments and hasattr(span.arguments['prompt'], '__dict__') and take_back(span.arguments['prompt'])\n",
            ),
        ),
    ),
    Sabotage(
        "li-native-limit",
        "the worst case of a native structured call is that of a limit it does not send",
        GATE + "test_the_worst_case_of_a_native_structured_call_is_not_the_limit_it_ignores",
        ((INDEX + "unmetered.py", "{**dict.fromkeys(LIMITS), **given}", "given"),),
    ),
    Sabotage(
        "li-undecorated-uncounted",
        "a model class without core's decorators spends without an entry",
        GATE + "test_a_model_without_decorators_is_counted_after_the_fact_and_named",
        ((INDEX + "tracking.py", "    elif not span.reported:\n", "    elif False:\n"),),
    ),
    Sabotage(
        "marks-ignored",
        "a request that both frameworks report is booked twice",
        MIXED + "test_a_registered_wrapper_and_what_it_wraps_are_one_request",
        (("marks.py", "        mark.taken_by = report\n    return mark", "    return None"),),
    ),
    Sabotage(
        "marks-for-ever",
        "two calls at once inside a wrapper are booked as one",
        MIXED + "test_a_wrapper_that_asks_two_at_once_is_two_requests",
        (("marks.py", "mark.taken_by not in {None, report}", "False"),),
    ),
    Sabotage(
        "marks-drop-targets",
        "a wrapper without a price of its own escapes the budgets of its own framework",
        MIXED + "test_handlers_of_both_frameworks_share_the_entry",
        (
            (
                "marks.py",
                "    more = mark.targets if mark is not None and _is_for(mark, framework) else ()\n",
                "    more = ()\n",
            ),
        ),
    ),
    Sabotage(
        "li-gemini-images",
        "images that Gemini made are billed as text, a twelfth of their price",
        GOOGLE + "test_an_image_costs_what_images_cost",
        (("usage/google.py", 'by_kind.get("IMAGE", 0) + by_kind', "0 * len(by_kind) + by_kind"),),
    ),
    Sabotage(
        "li-gemini-searches",
        "searches that ground a Gemini answer are not billed",
        PLAYED
        + "[llama_index.GoogleGenAI (Vertex)-single-google-vertex/generatecontent-gemini-3-flash-preview-google-vertex-tool-combination-omits-include-server]",
        ((INDEX + "extract.py", '_field(answer, "grounding_metadata")', '_field(answer, "grounding")'),),
    ),
    Sabotage(
        "li-gemini-prompt-or-query",
        "Gemini 2 is billed each query of a prompt, not the prompt",
        GOOGLE + "test_old_models_bill_the_grounded_prompt_and_new_ones_each_query",
        (("usage/google.py", "gemini-[12]", "gemini-[1]"),),
    ),
    Sabotage(
        "li-caches-unseen",
        "an Anthropic stream that lost its cache counters is priced as if nothing had been cached",
        PLAYED
        + "[llama_index.Anthropic-single-anthropic/messages-claude-sonnet-4-20250514-anthropic-completion-stream-cache-read]",
        ((INDEX + "extract.py", "if silent and asked_caching:", "if False:"),),
    ),
    Sabotage(
        "li-aiohttp-status",
        "a refusal of Gemini's async client is booked as sent with nobody knows what outcome",
        LOSSES + "test_a_refusal_of_geminis_async_client_is_an_http_error_and_costs_nothing",
        (("http_errors.py", "if status is None and _of_aiohttp(holder):", "if False:"),),
    ),
    Sabotage(
        "li-kinds-join",
        "an embedding inside a model's call is booked as that call, which is lost",
        SLIPS + "test_an_embedding_inside_a_native_structured_call_does_not_hide_it",
        ((INDEX + "reports.py", "report.is_open and report.kind == kind", "report.is_open"),),
    ),
    Sabotage(
        "li-own-request-lost",
        "a model that asks another one and then sends itself is booked once",
        SLIPS + "test_a_model_that_asks_another_one_and_then_sends_itself_is_two_requests",
        ((INDEX + "capture.py", "            self._end_wrapping(report, wrapping, read)\n", ""),),
    ),
    Sabotage(
        "li-first-event",
        "a cut stream of Anthropic is booked at the one token of its first event",
        SLIPS + "test_a_cut_stream_of_anthropic_is_at_least_what_was_seen",
        ((INDEX + "failures.py", "usage = partial.usage and _at_least(partial.usage, seen)", "usage = partial.usage"),),
    ),
    Sabotage(
        "li-limit-order",
        "the worst case of llms-openai is that of a limit which the model's own goes over",
        SLIPS + "test_the_models_own_max_tokens_which_llms_openai_sends_bounds_the_answer",
        (
            (
                INDEX + "models.py",
                "{**own, **given, **limits, **extra} if is_openai(instance) else",
                "{**own, **extra, **given} if is_openai(instance) else",
            ),
        ),
    ),
    Sabotage(
        "li-handler-spreads",
        "a handler of one model is put into the settings of all",
        SLIPS + "test_a_handler_of_one_model_does_not_spread_over_the_settings",
        (
            (
                INDEX + "workarounds.py",
                "isinstance(manager, CallbackManager) or _lacks(manager, gates, everywhere)",
                "isinstance(manager, CallbackManager)",
            ),
        ),
    ),
    Sabotage(
        "li-batch-crossing",
        "a crossing in an async batch of embeddings gives back what was sent",
        SLIPS + "test_a_crossing_in_an_async_batch_does_not_give_back_what_was_sent",
        ((INDEX + "tracking.py", " and error.entry is None)", ")"),),
    ),
    Sabotage(
        "li-engine-forgets",
        "an engine takes the limit off a model that had no call before",
        GATE + "test_a_gate_is_put_back_even_where_the_model_had_no_call_before",
        ((INDEX + "workarounds.py", "            known(self)\n", "            pass\n"),),
    ),
    Sabotage(
        "li-refusal-retried",
        "sync methods that run async ones turn a refusal into a bare RuntimeError",
        STOPPED + "[accumulate use_async-install()]",
        ((INDEX + "tracking.py", "        let_errors_through()\n", ""),),
    ),
    Sabotage(
        "li-refusal-retried-by-name",
        "the same in modules that imported core's function by name",
        STOPPED + "[IngestionPipeline with an extractor-install()]",
        ((INDEX + "workarounds.py", 'known.startswith("llama_index.")', 'known == "llama_index.core.async_utils"'),),
    ),
    Sabotage(
        "li-refusal-behind-bar",
        "the same behind a progress bar",
        "tests/llama/test_sync_over_async.py::test_a_progress_bar_does_not_hide_a_refusal",
        ((INDEX + "workarounds.py", '("asyncio_run", "run_async_tasks")', '("asyncio_run",)'),),
    ),
)
