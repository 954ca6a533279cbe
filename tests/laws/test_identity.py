"""Which model a name means: ARNs, profiles, paths, routes, fine-tunes; never the price of another model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks.pricing import PriceBook, RateCard, Unpriced
from ai_budget_callbacks.pricing.identity import is_listed, needs_mapping, plain_name
from ai_budget_callbacks.usage import Terms
from tests.support.goldens import NOW

BOOK = PriceBook()
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:"


def input_usd(provider: str, model: str) -> str | None:
    """USD for a million plain input tokens, or None where the model has no price."""
    card = BOOK.card(provider, model, Terms(), NOW)
    if isinstance(card, Unpriced):
        return None
    return format(card.rates["input_uncached"].usd.normalize(), "f")


@pytest.mark.parametrize(
    ("provider", "model", "usd"),
    [
        # Bedrock: a global profile costs the list price, every other one a tenth more, the government's its own
        ("aws", f"global.{SONNET}", "3"),
        ("aws", SONNET, "3.3"),
        ("aws", f"us.{SONNET}", "3.3"),
        ("aws", f"eu.{SONNET}", "3.3"),
        ("aws", f"us-gov.{SONNET}", "3.6"),
        ("aws", f"{ARN}inference-profile/global.{SONNET}", "3"),
        ("aws", f"{ARN}inference-profile/us.{SONNET}", "3.3"),
        ("aws", f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}", "3.3"),
        ("aws", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "0.8"),
        ("aws", f"arn:aws-us-gov:bedrock:us-gov-west-1:1:inference-profile/us-gov.{SONNET}", "3.6"),
        # a government's region says so, and its list has nothing under the plain id
        ("aws", f"arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/{SONNET}", None),
        ("aws", f"US-GOV.{SONNET}", None),
        ("aws", "us-gov.anthropic.claude-3-haiku-20240307-v1:0", None),
        # what is a user's own says nothing of a model
        ("aws", f"{ARN}application-inference-profile/a1b2", None),
        ("aws", f"{ARN}provisioned-model/{SONNET}", None),
        ("aws", f"{ARN}custom-model/amazon.nova-pro-v1:0:8k/abc", None),
        ("aws", f"{ARN}custom-model-deployment/abc", None),
        ("aws", f"{ARN}imported-model/abc", None),
        ("aws", f"{ARN}prompt-router/abc", None),
        ("aws", f"{ARN}default-prompt-router/anthropic.claude:1", None),
        ("aws", "arn:aws:sagemaker:us-east-1:123456789012:endpoint/endpoint-quick-start-idr7y", None),
        # OpenAI: a fine-tuned model is dearer than its base, and never priced as it
        ("openai", "gpt-4o-2024-08-06", "2.5"),
        ("openai", "ft:gpt-4o-2024-08-06:acme::9xYz", "3.75"),
        ("openai", "ft:gpt-4o-2024-08-06", "3.75"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme:suffix:9xYz", "0.3"),
        ("openai", "ft:gpt-4.1-2025-04-14:acme::9xYz", None),
        ("openai", "FT:gpt-4o-2024-08-06:acme::9xYz", "3.75"),
        ("azure", "ft:gpt-4o-2024-08-06:acme::9xYz", None),
        ("mistral", "ft:open-mistral-7b:acme:9xYz", None),
        # Google: the API's and Vertex' paths; Claude at a region's endpoint is a tenth dearer, nobody says in our data
        ("google", "gemini-2.5-pro", "1.25"),
        ("google", "models/gemini-2.5-pro", "1.25"),
        ("google", "publishers/google/models/gemini-2.5-pro", "1.25"),
        ("google", "projects/p/locations/us-central1/publishers/google/models/gemini-2.5-pro", "1.25"),
        ("google", "projects/models/locations/us-central1/publishers/google/models/gemini-2.5-pro", "1.25"),
        ("google", "tunedModels/mine", None),
        ("google", "projects/p/locations/us-central1/models/123@1", None),
        ("google", "claude-sonnet-4-5@20250929", "3"),
        ("google", "projects/p/locations/global/publishers/anthropic/models/claude-sonnet-4-5@20250929", "3"),
        ("google", "projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-5@20250929", None),
        # OpenRouter: who serves a model does not change its list price; a listing of its own does
        ("openrouter", "openai/gpt-4o", "2.5"),
        ("openrouter", "openai/gpt-4o:nitro", "2.5"),
        ("openrouter", "openai/gpt-4o:floor", "2.5"),
        ("openrouter", "openai/gpt-4o:exacto", "2.5"),
        ("openrouter", "openai/gpt-4o:extended", "6"),
        ("openrouter", "openai/gpt-4o:thinking", None),
        ("openrouter", "openrouter/auto", None),
        # a prefix or suffix of one provider is no rule of another
        ("openai", "models/gpt-4o", None),
        ("openai", "gpt-4o:nitro", None),
        ("anthropic", f"us.{SONNET}", None),
    ],
)
def test_a_name_has_the_price_of_its_model_or_none(provider, model, usd):
    assert input_usd(provider, model) == usd


@pytest.mark.parametrize(
    ("provider", "model", "plain"),
    [
        ("azure", "ft:gpt-4o-2024-08-06:acme::9xYz", "ft:gpt-4o-2024-08-06"),
        ("openai", "gpt-4o:a:b", "gpt-4o:a:b"),
        ("mistral", "ft:open-mistral-7b:acme:9xYz", "ft:open-mistral-7b:acme:9xYz"),
        ("anthropic", f"{ARN}foundation-model/{SONNET}", f"{ARN}foundation-model/{SONNET}"),
        ("google", "gemini-2.5-pro", "gemini-2.5-pro"),
    ],
)
def test_only_what_a_provider_writes_is_taken_off_its_names(provider, model, plain):
    assert plain_name(provider, model) == plain


def test_a_free_variant_is_its_own_listing():
    card = BOOK.card("openrouter", "deepseek/deepseek-r1:free", Terms(), NOW)
    assert isinstance(card, RateCard)
    assert card.free
    assert plain_name("openrouter", "deepseek/deepseek-r1:free") == "deepseek/deepseek-r1:free"


@pytest.mark.parametrize(
    "resource",
    [
        "application-inference-profile/x",
        "prompt-router/x",
        "default-prompt-router/x",
        "provisioned-model/x",
        "imported-model/x",
    ],
)
@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_a_resource_of_ones_own_asks_for_a_price(resource, partition):
    name = f"arn:{partition}:bedrock:us-east-1:123456789012:{resource}"
    assert needs_mapping("aws", name)
    assert not needs_mapping("openai", name)
    card = BOOK.card("aws", name, Terms(), NOW)
    assert (
        card.reason
        == f"{name!r} is a resource of your own and does not say which model answers; declare a price for it"
    )


@pytest.mark.parametrize(
    "terms",
    [Terms(batch=True), Terms(service_tier="priority"), Terms(service_tier="flex"), Terms(speed="fast")],
    ids=repr,
)
@pytest.mark.parametrize(
    ("provider", "model"),
    [("aws", f"us-gov.{SONNET}"), ("openai", "ft:gpt-4o-2024-08-06:a::b"), ("cohere", "rerank-v3.5")],
)
def test_an_added_model_has_its_standard_price_alone(provider, model, terms):
    assert isinstance(BOOK.card(provider, model, Terms(service_tier="default"), NOW), RateCard)
    assert isinstance(BOOK.card(provider, model, terms, NOW), Unpriced)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["aws", "openai", "azure", "google", "openrouter", "mistral"]),
    st.text(st.sampled_from("arn:aws-bedrock/models.ft:us-gov@0:online gpt"), max_size=40),
)
def test_any_text_is_a_name_or_none_and_a_plain_name_is_plain(provider, model):
    name = plain_name(provider, model)
    if provider != "openrouter":  # of several routes one is taken at a time
        assert plain_name(provider, name) == name
    assert isinstance(is_listed(provider, name), bool)
    assert isinstance(needs_mapping(provider, model), bool)
