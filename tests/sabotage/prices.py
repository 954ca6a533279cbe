"""The sabotages of readers and prices: each lets money slip in one wire format, or prices it at another model's."""

from __future__ import annotations

from tests.sabotage.sabotage import Sabotage

BEDROCK = "tests/laws/test_bedrock.py::"
BOOK = "tests/laws/test_book.py::"
BOOKING = "tests/laws/test_booking.py::"
COHERE = "tests/laws/test_cohere.py::"
CORPUS = "tests/laws/test_corpus.py::"
DAMAGE = "tests/laws/test_mutated_corpus.py::"
FLAT = "tests/laws/test_flat.py::"
GOLDENS = "tests/laws/test_goldens.py::"
IDENTITY = "tests/laws/test_identity.py::"
INTERACTIONS = "tests/laws/test_interactions.py::"
LIMITS = "tests/laws/test_limits.py::"
SIZES = "tests/laws/test_sizes.py::"
LAWS = "tests/laws/test_pricing_laws.py::"
OWN = "tests/laws/test_own_prices.py::"
CARDS = "tests/laws/test_all_cards.py::"
UNITS = "tests/laws/test_units.py::"
WIRE = "tests/laws/test_wire.py::"

PRICES = (
    Sabotage(
        "bedrock-cache-in-input",
        "Bedrock's cached tokens are billed once more as input",
        GOLDENS + "test_cost_is_right_to_the_last_digit[bedrock-converse-global]",
        (
            (
                "usage/bedrock.py",
                'counts.put("input_uncached", plain)',
                'counts.put("input_uncached", (plain or 0) + (cached or 0) + (written or 0))',
            ),
        ),
    ),
    Sabotage(
        "bedrock-total-ignored",
        "tokens that only Converse's total knows of are free",
        BEDROCK + "test_the_reader_never_loses_a_token_that_a_total_states",
        (("usage/bedrock.py", "beyond = 0 if total is None else total - sum(counts.buckets.values())", "beyond = 0"),),
    ),
    Sabotage(
        "bedrock-hours-as-minutes",
        "cache writes that live an hour are billed at the price of five minutes",
        BEDROCK + "test_converse_by_hand",
        (("usage/bedrock.py", '_LIFETIMES.get(str(item.get("ttl")), "cache_write")', '"cache_write_5m"'),),
    ),
    Sabotage(
        "headers-ignored",
        "models of Bedrock that count in the response headers alone cost nothing",
        CORPUS + "test_recorded_answer_is_read_as_billed",
        (("usage/wire.py", "    usage = bedrock.completed(usage, headers)\n", ""),),
    ),
    Sabotage(
        "bedrock-latency-unseen",
        "answers at optimized latency, which are dearer, have the usual price",
        BEDROCK + "test_an_answer_served_at_optimized_latency_is_not_priced_at_the_usual_rate",
        (("usage/wire.py", "speed=terms.speed or _latency(answers)", "speed=terms.speed"),),
    ),
    Sabotage(
        "cohere-tokens",
        "Cohere's tokens are billed, with the template's overhead, and not its billed units",
        GOLDENS + "test_cost_is_right_to_the_last_digit[cohere-billed-units]",
        (("usage/cohere.py", 'units = counts.part(source, "billed_units")', 'units = counts.part(source, "tokens")'),),
    ),
    Sabotage(
        "cohere-half-lost",
        "a half that the billed units do not say is free though the tokens say it",
        COHERE + "test_shapes_by_hand",
        (("usage/cohere.py", "        if found[bucket] is None:\n", "        if False:\n"),),
    ),
    Sabotage(
        "unknown-unit-free",
        "what is billed in a unit that is not known costs nothing",
        COHERE + "test_a_unit_without_a_bucket_is_unpriced_and_so_are_images",
        (
            (
                "pricing/card.py",
                '    "unknown_unit": "part of the usage is billed in a unit that is not known here",\n',
                "",
            ),
        ),
    ),
    Sabotage(
        "watsonx-summed",
        "the counts that watsonx repeats in every event of a stream are added up",
        FLAT + "test_watsonx_repeats_its_counts_in_a_stream_and_is_not_summed_over_events",
        (
            (
                "usage/flat.py",
                "max(most.get(bucket, 0), counts.read(event, key) or 0, sum(parts))",
                "most.get(bucket, 0) + max(counts.read(event, key) or 0, sum(parts))",
            ),
        ),
    ),
    Sabotage(
        "interactions-tool-dropped",
        "the prompts of tools in Gemini's interactions are not billed as input",
        INTERACTIONS + "test_totals_by_hand",
        (("usage/google.py", 'counts.read(source, "total_tool_use_tokens") or 0', "0"),),
    ),
    Sabotage(
        "embedded-dropped",
        "embeddings of Vertex cost nothing",
        CORPUS + "test_recorded_answer_is_read_as_billed",
        (("usage/wire.py", "        yield google.embedded(answer), answer\n", ""),),
    ),
    Sabotage(
        "advisor-dropped",
        "the second model inside an Anthropic answer is free",
        CORPUS + "test_an_advisors_bill_is_counted_under_its_own_model",
        (("usage/anthropic.py", "        others=others,\n", "        others=(),\n"),),
    ),
    Sabotage(
        "others-not-summed",
        "the cost of another model inside an answer has lines and is not in the sum",
        "tests/laws/test_others.py::test_advice_is_billed_at_the_advisors_price_and_its_lines_say_whose_they_are",
        (
            (
                "pricing/card.py",
                'status="free" if free else "priced", pico=sum(known),',
                'status="free" if free else "priced", pico=known[0],',
            ),
        ),
    ),
    Sabotage(
        "iteration-unknown-free",
        "an iteration of a kind nobody knows is free",
        "tests/laws/test_readers.py::test_an_iteration_of_another_kind_is_billed_and_nobody_says_at_what_price",
        (("usage/anthropic.py", 'elif entry.get("type") != "message":', "elif False:"),),
    ),
    Sabotage(
        "empty-event-undoes",
        "a stream's last event without input makes its input free",
        WIRE + "test_an_anthropic_event_without_input_does_not_undo_the_start_of_the_stream",
        (
            (
                "usage/anthropic.py",
                "            said.update({key: merged[key] for key in _INPUT if key in merged})\n",
                "            pass\n",
            ),
        ),
    ),
    Sabotage(
        "zeros-hold",
        "a stream whose last report is of zeros has no usage",
        WIRE + "test_a_report_of_zeros_does_not_undo_one_that_counted",
        (
            (
                "usage/wire.py",
                "        if usage is not None and not usage.nothing:\n",
                "        if usage is not None:\n",
            ),
        ),
    ),
    Sabotage(
        "nonsense-quiet",
        "a damaged count is left out and no flag says so",
        DAMAGE + "test_no_damage_raises_or_becomes_a_silent_zero[openai]",
        (
            (
                "usage/_counts.py",
                '                return value\n            self.flag("invalid_count")\n        return None',
                "                return value\n        return None",
            ),
        ),
    ),
    Sabotage(
        "weekend-ignored",
        "DeepSeek's weekends cost what its peak hours do",
        GOLDENS + "test_cost_is_right_to_the_last_digit[deepseek-weekend]",
        (
            (
                "pricing/corrections.py",
                "return not self.days or _DAYS[day.weekday()] in self.days",
                "return not self.days",
            ),
        ),
    ),
    Sabotage(
        "weekend-of-the-caller",
        "it is the weekend where the caller's clock says so",
        LAWS + "test_a_day_is_that_of_utc_wherever_the_clock_of_the_call_stands",
        (("pricing/corrections.py", "day = at.astimezone(UTC).date()", "day = at.date()"),),
    ),
    Sabotage(
        "govcloud-as-regional",
        "models of GovCloud have the price of a region that costs less",
        IDENTITY + "test_a_name_has_the_price_of_its_model_or_none",
        (
            (
                "pricing/identity.py",
                "elsewhere = _GOVERNMENT.search(model) or _REGIONAL_CLAUDE.search(model)",
                "elsewhere = _REGIONAL_CLAUDE.search(model)",
            ),
        ),
    ),
    Sabotage(
        "fine-tuned-as-base",
        "a fine-tuned model costs what its base does",
        IDENTITY + "test_a_name_has_the_price_of_its_model_or_none",
        (("pricing/identity.py", 'return ":".join(model.split(":")[:2])', 'return model.split(":")[1]'),),
    ),
    Sabotage(
        "added-at-any-terms",
        "a model that has its standard price alone is sold at it in batches and at every tier",
        IDENTITY + "test_an_added_model_has_its_standard_price_alone",
        (
            (
                "pricing/corrections.py",
                "if row is None or terms != Terms(service_tier=terms.service_tier) or terms.service_tier not in _STANDARD:",
                "if row is None:",
            ),
        ),
    ),
    Sabotage(
        "factor-unapplied",
        "US-only inference costs what the rest of the world does",
        LAWS + "test_every_us_only_model_is_in_the_catalogue_and_costs_a_tenth_more",
        (("pricing/corrections.py", "rate.scaled(row.factor) if b in _TOKENS else rate", "rate"),),
    ),
    Sabotage(
        "search-context-any",
        "every request to Perplexity has the fee of a medium context",
        GOLDENS + "test_cost_is_right_to_the_last_digit[perplexity-request-fee]",
        (
            (
                "pricing/corrections.py",
                "if self.search_context is not None and self.search_context != terms.search_context:",
                "if False:",
            ),
        ),
    ),
    Sabotage(
        "perplexity-fee-dropped",
        "the fee of a request is not billed",
        GOLDENS + "test_cost_is_right_to_the_last_digit[perplexity-request-fee]",
        (
            ("usage/perplexity.py", "1 if isinstance(size, str) else 0", "0"),
            ("pricing/card.py", '    fee = card.rates.get("request_fee")\n', "    fee = None\n"),
        ),
    ),
    Sabotage(
        "citations-dropped",
        "the citation tokens of deep research are free",
        GOLDENS + "test_cost_is_right_to_the_last_digit[perplexity-deep-research]",
        (("usage/perplexity.py", '    "output_citation": "citation_tokens",\n', ""),),
    ),
    Sabotage(
        "xai-tools-dropped",
        "tools that xAI's usage counts are free",
        GOLDENS + "test_cost_is_right_to_the_last_digit[xai-responses-tools]",
        (("usage/openai.py", "for bucket, keys in _TOOL_COUNTERS.items():", "for bucket, keys in ():"),),
    ),
    Sabotage(
        "reasoning-outside-lost",
        "xAI's answer loses its text where reasoning is larger and no total says that it is on top",
        UNITS + "test_more_reasoning_than_completion_is_on_top_of_it_where_no_total_says_otherwise",
        (("usage/openai.py", "        on_top = reasoning  # it", "        on_top = 0  # it"),),
    ),
    Sabotage(
        "container-each",
        "a container is billed for each call that runs in it",
        UNITS + "test_a_container_is_billed_once_however_many_calls_share_it",
        (("usage/openai.py", "            if container in containers:\n", "            if False:\n"),),
    ),
    Sabotage(
        "seconds-dropped",
        "transcriptions that are billed by time cost nothing",
        UNITS + "test_a_part_of_a_second_is_billed_whole",
        (("usage/openai.py", "            return _read_duration(source)\n", "            return None\n"),),
    ),
    Sabotage(
        "reported-zero",
        "a stated cost of 0 is taken for a model that is not free",
        "tests/laws/test_reported.py::test_a_stated_zero_is_taken_for_a_free_variant_alone",
        (("pricing/reported.py", ' and requested is not None and requested.endswith(":free")', " and requested"),),
    ),
    Sabotage(
        "threshold-inclusive",
        "a request of exactly the threshold is billed as a long one",
        CARDS + "test_a_threshold_is_strict_moves_the_whole_request_and_never_makes_it_cheaper",
        (("pricing/card.py", "            if input_tokens > step[0]:\n", "            if input_tokens >= step[0]:\n"),),
    ),
    Sabotage(
        "image-held-at-nothing",
        "a worst case leaves out a request's images",
        LIMITS + "test_images_of_a_small_model_are_held_at_what_they_cost",
        (("pricing/estimate.py", "        + image * request.images\n        +", "        +"),),
    ),
    Sabotage(
        "image-counted-as-a-guess",
        "an image of an answer without usage is counted as 1,500 tokens, whatever its model makes of one",
        BOOKING + "test_images_are_counted_where_no_usage_came",
        (
            (
                "pricing/estimate.py",
                "max(image_tokens(call.provider, call.model) or 0, OTHER_PART_GUESS)",
                "OTHER_PART_GUESS",
            ),
        ),
    ),
    Sabotage(
        "json-of-no-tokens",
        "where a tokenizer counts the texts, tool calls and blocks of a prompt are held at nothing",
        SIZES + "test_json_is_taken_for_a_token_a_byte",
        (("sizes.py", "            self.tokens += size\n", "            self.tokens += 0\n"),),
    ),
    Sabotage(
        "long-text-of-no-tokens",
        "a text that is too long to be counted is held at nothing",
        SIZES + "test_one_text_that_is_not_counted_leaves_bytes_alone_for_all",
        (
            (
                "sizes.py",
                "None if counted is None or self.tokens is None else self.tokens + counted",
                "None if self.tokens is None else self.tokens + (counted or 0)",
            ),
        ),
    ),
    Sabotage(
        "thoughts-inside-the-limit",
        "thoughts that max_tokens is not known to bound are held as if it did",
        LIMITS + "test_thoughts_that_nothing_is_known_to_bound_are_held_in_full_or_refused",
        (("pricing/estimate.py", "    if thinks_beyond_limit(call.provider, call.model):\n", "    if False:\n"),),
    ),
    Sabotage(
        "added-models-on-any-terms",
        "a model that a correction adds has its standard price in batches and on every tier",
        LAWS + "test_a_model_that_a_correction_adds_has_no_price_on_other_terms",
        (
            (
                "pricing/corrections.py",
                "if row is None or terms != Terms(service_tier=terms.service_tier) or terms.service_tier not in _STANDARD:",
                "if row is None:",
            ),
        ),
    ),
    Sabotage(
        "weekends-of-the-machine",
        "peak hours end with the weekend of the machine's own time zone",
        LAWS + "test_a_day_is_that_of_utc_wherever_this_process_runs",
        (("pricing/corrections.py", "at.astimezone(UTC).date()", "at.astimezone().date()"),),
    ),
    Sabotage(
        "answer-priced-as-asked",
        "an answer of a dearer model than the one that was asked for is billed at the price of that",
        BOOK + "test_the_model_that_answered_is_billed_and_not_the_one_that_was_asked_for",
        (("pricing/book.py", "model if own is None else name, usage.terms, at)", "name, usage.terms, at)"),),
    ),
    Sabotage(
        "thresholds-within-thresholds",
        "a long request's price may have thresholds of its own, which nothing bills",
        OWN + "test_a_long_requests_price_that_would_bill_nonsense_is_refused",
        (("pricing/own.py", "or price.above or price.at_least or price.per", "or price.per"),),
    ),
    Sabotage(
        "drawn-as-text",
        "what the images API draws without details is billed as text, at a third of its price",
        UNITS + "test_all_that_the_images_api_makes_without_details_is_an_image",
        (("usage/openai.py", "    if not details and _of_images_api(source):\n", "    if False:\n"),),
    ),
    Sabotage(
        "deployment-as-answered",
        "a deployment is billed at another price of the user's, under the name in its answer: free, for one",
        OWN + "test_a_deployment_with_a_price_is_billed_as_it_was_held_whatever_the_name_in_the_answer_costs",
        (("pricing/book.py", "(requested != model and self._is_deployment(provider, requested))", "False"),),
    ),
    Sabotage(
        "clients-word-ignored",
        "a price of one's own under a client's word for its provider is not found: the list's is billed",
        OWN + "test_a_price_for_one_provider_may_name_it_as_a_client_does",
        (
            (
                "pricing/book.py",
                "known = catalogue().provider_for_name(provider) or provider\n            _put",
                "known = provider\n            _put",
            ),
        ),
    ),
)
