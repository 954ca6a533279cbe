"""Runs in an environment of its own (.compare/) with litellm alone: cases as JSON on stdin, costs as JSON on stdout.

Nothing of ours is imported here. litellm is given the counts as they are billed, already in its own usage object, so that
only its price and its multiplication are judged. Every answer is asked under each of its names, and with cached sound
inside the sound and beside it; all that comes back is returned, and the best of it is taken (tests/compare/__main__.py).
"""

from __future__ import annotations

import json
import sys
from typing import Any

NAMES = {"google": "gemini", "aws": "bedrock", "x-ai": "xai", "cohere": "cohere_chat", "together": "together_ai"}


def usage_of(buckets: dict[str, int], *, inside: bool) -> Any:
    from litellm.types.utils import (
        CompletionTokensDetailsWrapper,
        PromptTokensDetailsWrapper,
        ServerToolUse,
        Usage,
    )

    def total(*names: str) -> int:
        return sum(buckets.get(name, 0) for name in names)

    cached = total("cache_read", "cache_read_audio", "cache_read_image")
    five, hour = total("cache_write", "cache_write_5m"), total("cache_write_1h")
    given = sum(n for name, n in buckets.items() if name.startswith(("input_", "cache_")) and "hours" not in name)
    made = sum(n for name, n in buckets.items() if name.startswith("output_"))
    prompt: dict[str, Any] = {
        "cached_tokens": cached,
        "audio_tokens": total("input_audio", "cache_read_audio" if inside else "") or None,
        "image_tokens": total("input_image", "cache_read_image" if inside else "") or None,
        "text_tokens": total("input_uncached", "input_tool"),
        "cache_creation_tokens": five + hour or None,
    }
    if hour:
        prompt["cache_creation_token_details"] = {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour}
    searches = total("web_search")
    if searches:
        prompt["web_search_requests"] = searches
    return Usage(
        prompt_tokens=given,
        completion_tokens=made,
        total_tokens=given + made,
        prompt_tokens_details=PromptTokensDetailsWrapper(**{k: v for k, v in prompt.items() if v is not None}),
        completion_tokens_details=CompletionTokensDetailsWrapper(
            reasoning_tokens=total("output_reasoning") or None,
            audio_tokens=total("output_audio") or None,
            image_tokens=total("output_image") or None,
            text_tokens=total("output_text", "output_citation"),
        ),
        cache_read_input_tokens=cached or None,
        cache_creation_input_tokens=five + hour or None,
        server_tool_use=ServerToolUse(web_search_requests=searches) if searches else None,
        **({"citation_tokens": buckets["output_citation"]} if "output_citation" in buckets else {}),
        **({"num_search_queries": searches} if searches else {}),
    )


def cost_of(case: dict[str, Any], model: str, *, inside: bool) -> float:
    import litellm
    from litellm.types.utils import EmbeddingResponse, ModelResponse

    provider = NAMES.get(case["provider"], case["provider"])
    buckets = case["buckets"]
    if "rerank_search_unit" in buckets:
        from litellm.types.rerank import RerankResponse

        meta = {"billed_units": {"search_units": buckets["rerank_search_unit"]}}
        answer: Any = RerankResponse(id="x", results=[], meta=meta)
        return litellm.completion_cost(answer, model=model, custom_llm_provider="cohere", call_type="rerank")
    usage = usage_of(buckets, inside=inside)
    if case["batch"]:
        from litellm.cost_calculator import batch_cost_calculator

        return sum(batch_cost_calculator(usage=usage, model=model, custom_llm_provider=provider))
    embeds = not usage.completion_tokens and "embed" in model
    kind = EmbeddingResponse if embeds else ModelResponse
    answer = kind(model=model)
    answer.usage = usage
    return litellm.completion_cost(
        answer,
        model=model,
        custom_llm_provider=provider,
        call_type="embedding" if embeds else "completion",
        service_tier=case["service_tier"],
    )


def main() -> None:
    found = {}
    for case in json.load(sys.stdin):
        said = found[case["id"]] = []
        provider = NAMES.get(case["provider"], case["provider"])
        for model in (name for plain in case["models"] for name in (plain, f"{provider}/{plain}")):
            for inside in (True, False):
                try:
                    said.append(repr(float(cost_of(case, model, inside=inside))))
                except Exception as error:
                    said.append(f"raises {type(error).__name__}: {str(error)[:120]}")
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
