"""Sabotages of what both adapters put back where a provider's client loses it, and of what its exceptions mean."""

from __future__ import annotations

from tests.sabotage.sabotage import Sabotage

CHAIN = "tests/providers/test_clients.py::"
INDEX = "tests/providers/test_integrations.py::"
REGAINED = "langchain/regained.py"
KEPT = "llama_index/regained.py"
PLAYED = "tests/recordings/test_recordings.py::TestLangChain::test_the_ledger_has_what_was_billed"


def _one(name: str, what: str, test: str, file: str, old: str, new: str) -> Sabotage:
    return Sabotage(name, what, test, ((file, old, new),))


CLIENTS = (
    _one(
        "claude-of-another-seller",
        "a Claude asked through Bedrock is priced as Anthropic sells it, without the region",
        CHAIN + "test_a_claude_asked_through_bedrock_is_priced_as_bedrock_sells_it",
        "langchain/request.py",
        '"anthropic-bedrock": "aws"',
        '"": "aws"',
    ),
    _one(
        "claude-without-region",
        "the name a Claude on Bedrock gives itself decides its price: the global one is billed as regional",
        CHAIN + "test_a_claude_asked_through_bedrock_is_priced_as_bedrock_sells_it",
        "langchain/extract.py",
        'provider == "aws" and model and str(model) in asked',
        "False",
    ),
    _one(
        "sound-as-text",
        "audio that nothing counts is priced as text, at a third",
        CHAIN + "test_sound_that_nothing_counts_is_priced_as_sound",
        REGAINED,
        "(_AS_AUDIO if sounds else {})",
        "{}",
    ),
    _one(
        "sound-everywhere",
        "audio is unpriced where it costs what text does",
        CHAIN + "test_sound_without_a_price_of_its_own_is_input",
        "langchain/capture.py",
        "has_sound(messages) and _prices_audio(ongoing)",
        "has_sound(messages)",
    ),
    _one(
        "images-as-text",
        "an image is priced as text, at a twelfth",
        CHAIN + "test_an_image_costs_what_images_cost",
        REGAINED,
        "(_AS_IMAGES if drawn else {})",
        "{}",
    ),
    _one(
        "grounding-lost",
        "Gemini's searches cost nothing through LangChain",
        CHAIN + "test_a_grounded_answers_searches_are_billed",
        REGAINED,
        'usage.with_units(google.count_grounding(metadata.get("grounding_metadata"), model))',
        "usage",
    ),
    _one(
        "own-key-unpaid",
        "what a key of one's own paid behind OpenRouter is not booked",
        CHAIN + "test_a_key_of_ones_own_at_openrouter_pays_the_provider_too",
        REGAINED,
        "upstream > 2 * cost",
        "False",
    ),
    _one(
        "openrouter-cost-dropped",
        "the cost that ChatOpenRouter keeps is not read",
        CHAIN + "test_openrouters_stated_cost_is_kept_by_its_own_client",
        "langchain/extract.py",
        "        return with_cost(usage, metadata)\n",
        "        return usage\n",
    ),
    _one(
        "unread-answer-unknown",
        "an answer that hangs on its client's exception is not read",
        CHAIN + "test_an_answer_that_openrouters_client_cannot_read_is_priced_from_its_exception",
        "langchain/failures.py",
        "_body(result) or answer_body(error)",
        "_body(result)",
    ),
    _one(
        "headers-as-output",
        "cached tokens of Bedrock's headers are billed as output",
        CHAIN + "test_cached_tokens_in_the_headers_of_bedrock_are_no_output",
        "langchain/extract.py",
        'if provider == "aws" and "prompt_tokens" in raw:',
        "if False:",
    ),
    _one(
        "metrics-unread",
        "the counts that a text model of Bedrock keeps with its answer are not read",
        PLAYED + "[BedrockLLM-single-bedrock/invoke-model-amazon-titan-tg1-large-amazon-invoke-stream]",
        "langchain/extract.py",
        "return bedrock_metrics(info) or flat.read(info), info",
        "return None, info",
    ),
    _one(
        "tier-of-converse-lost",
        "a dearer tier of Bedrock is priced as the standard one",
        CHAIN + "test_a_tier_of_converse_without_a_price_is_unpriced",
        REGAINED,
        "if isinstance(tier, str) else usage",
        "if False else usage",
    ),
    _one(
        "perplexity-inside",
        "Perplexity's reasoning is taken for a part of its output, and citations and fees for nothing",
        CHAIN + "test_perplexitys_searches_citations_and_reasoning_are_billed",
        "langchain/extract.py",
        'if provider == "perplexity":\n        return of_perplexity(found, metadata)',
        "if False:\n        return of_perplexity(found, metadata)",
    ),
    _one(
        "last-difference-is-all",
        "the last difference of Perplexity's chunks is taken for the whole usage",
        CHAIN + "test_perplexitys_chunks_are_differences_of_cumulative_usage",
        "langchain/capture.py",
        'frozenset({"google_genai", "perplexity"})',
        'frozenset({"google_genai"})',
    ),
    _one(
        "cut-difference-is-all",
        "of a cut stream the last difference is booked alone",
        CHAIN + "test_a_cut_stream_of_differences_has_all_that_was_said",
        "langchain/capture.py",
        "add_usage(before, usage) if before else usage",
        "usage",
    ),
    _one(
        "xai-reasoning-twice",
        "reasoning that is inside xAI's output is billed twice in streams",
        CHAIN + "test_xais_reasoning_inside_its_output_is_not_counted_twice",
        "langchain/extract.py",
        "        total_out = (total_out or 0) - reasoning  #",
        "        pass  #",
    ),
    _one(
        "aws-refused-unknown",
        "a connection that AWS' client could not make is booked",
        CHAIN + "test_a_refused_connection_gives_its_hold_back[converse]",
        "http_errors.py",
        '        "EndpointConnectionError",\n',
        "",
    ),
    _one(
        "ollama-refused-unknown",
        "a server of Ollama's that is not there is booked",
        INDEX + "test_a_refused_connection_gives_its_hold_back[ollama]",
        "http_errors.py",
        "type(item) is ConnectionError and",
        "False and",
    ),
    _one(
        "li-converse-as-openai",
        "LlamaIndex's cached tokens of Bedrock are billed as output",
        INDEX + "test_converses_cached_tokens_are_no_output",
        "usage/bedrock.py",
        'counts.put("cache_read", cached)',
        'counts.put("output_text", cached)',
    ),
    _one(
        "li-converse-lifetimes",
        "one hour of Bedrock's cache costs what five minutes do",
        INDEX + "test_converses_lifetimes_are_read",
        "usage/bedrock.py",
        '_LIFETIMES = {"5m": "cache_write_5m", "1h": "cache_write_1h"}',
        '_LIFETIMES = {"5m": "cache_write_5m", "1h": "cache_write_5m"}',
    ),
    _one(
        "li-converse-tier",
        "LlamaIndex prices a dearer tier of Bedrock as the standard one",
        INDEX + "test_a_tier_of_converse_without_a_price_is_unpriced",
        KEPT,
        "terms=replace(usage.terms, service_tier=tier))",
        "terms=usage.terms)",
    ),
    _one(
        "li-cohere-unread",
        "what Cohere bills is guessed through LlamaIndex",
        INDEX + "test_what_cohere_bills_is_read",
        "llama_index/extract.py",
        "found = converse(answer) or billed_units(answer)",
        "found = converse(answer)",
    ),
    _one(
        "li-mistral-streams-guessed",
        "usage inside an event of Mistral's stream is not found",
        INDEX + "test_mistrals_cached_tokens_are_read",
        KEPT,
        'return data if _field(data, "choices") is not None else raw',
        "return raw",
    ),
    _one(
        "li-repeated-blocks",
        "text that each chunk of Mistral's repeats is counted for each chunk",
        INDEX + "test_a_cut_stream_of_repeated_blocks_is_counted_once",
        "llama_index/extract.py",
        "(shown_size(before) if text.startswith(before) else 0)",
        "0",
    ),
    _one(
        "li-unread-answer-unknown",
        "an answer that hangs on its client's exception is not read",
        INDEX + "test_an_answer_that_mistrals_client_cannot_read_is_priced_from_its_exception",
        "llama_index/failures.py",
        "paid = outcome_of_body(answer_body(error)) if status is not None else None",
        "paid = None",
    ),
)
