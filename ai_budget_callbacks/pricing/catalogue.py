"""The genai-prices data as a private, read-only source of rate cards. Its cost function is never called.

Why not: it bills buckets without a rate at their parent's rate, ignores unknown service tiers, and drops the
price context of models found through a fallback provider, all silently (genai-prices 0.2.3, facts/pricing.md
1.2). We build our own snapshot object, so other users of the library in this process never see it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.pricing import snapshot
from ai_budget_callbacks.pricing.card import Rate, RateCard, Source, Tier, Unpriced

if TYPE_CHECKING:
    from datetime import date, datetime

    from genai_prices import types as genai
    from genai_prices.data_snapshot import DataSnapshot

    from ai_budget_callbacks.usage import Terms

__all__ = ["Catalogue", "catalogue"]

_MTOK, _K, _HOUR = 1_000_000, 1_000, 3_600

# bucket → the catalogue's price keys that price it, first one wins
_TOKEN_KEYS = {
    "input_uncached": ("input_mtok",),
    "cache_read": ("cache_read_mtok",),
    "cache_write": ("cache_write_mtok",),
    "cache_write_5m": ("cache_write_5m_mtok", "cache_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok",),
    "input_audio": ("input_audio_mtok",),
    "cache_read_audio": ("cache_audio_read_mtok",),
    "input_image": ("input_image_mtok",),
    "cache_read_image": ("cache_image_read_mtok",),
    "input_video": ("input_video_mtok",),
    "output_text": ("output_mtok",),
    "output_reasoning": ("output_reasoning_mtok",),
    "output_audio": ("output_audio_mtok",),
    "output_image": ("output_image_mtok",),
    "output_citation": ("output_citation_mtok",),
}
_UNIT_KEYS = {
    "web_search": ("web_searches_kcount", _K),
    "file_search": ("storage_searches_kcount", _K),
    "request_fee": ("requests_kcount", _K),
    "audio_seconds": ("input_audio_hours", _HOUR),
    "document_pages": ("input_document_kpages", _K),
}
# What clients, users and the corpus call a provider, where the catalogue's own search does not know it.
_ALIASES = {
    "google_genai": "google",
    "google_vertexai": "google",
    "google-gemini": "google",
    "google-vertex": "google",
    "azure_openai": "azure",
    "azure-openai": "azure",
    "xai": "x-ai",
    "bedrock": "aws",
    "amazon_bedrock": "aws",
    "bedrock_converse": "aws",
    "voyage": "voyageai",
}
# Explicit, and everywhere true: reasoning is output, tool prompts are input. Audio and images never inherit.
_INHERITS = MappingProxyType({"output_reasoning": "output_text", "input_tool": "input_uncached"})
# OpenAI charges for cache writes from GPT-5.6 on; before that a written token is an input token
# (facts/pricing.md 3.1).
_INHERITS_OPENAI = MappingProxyType({**_INHERITS, "cache_write": "input_uncached"})

_STANDARD_TIERS = frozenset({None, "default", "standard", "auto", "on_demand"})
_STANDARD_SPEEDS = frozenset({None, "standard", "default", "normal"})
# a day, and what Google numbers its versions and previews by
_DATE_SUFFIX = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2}|latest|00\d|exp|(?:preview|exp)-\d{2}-\d{2}(?:-\d{4})?)$")
_REGION = re.compile(
    r"\A(?:arn:aws:bedrock:.*/)?(?:(?:us|eu|apac|jp|au|ca|in|global|regional)\.)?(?:(?:anthropic|amazon)\.)?"
)
_REVISION = re.compile(r"(?:-v1)?(?::0)?\Z")


@dataclass(frozen=True, slots=True)
class _Found:
    provider: Any
    model: Any
    own: bool  # the model stands in this provider's own list, not in a fallback's
    rule: str


class Catalogue:
    """Looks models up and reads their prices. Pure data; no network, no thread.

    Args:
        providers: The library's own data where None.
        name: Name and version of the data.
        as_of: The day the data is from, or None where nobody says.
    """

    def __init__(
        self, providers: list[Any] | None = None, *, name: str | None = None, as_of: date | None = None
    ) -> None:
        # Imports are here: genai_prices costs 0.2 s and is wanted at meter construction, not at package import.
        from genai_prices.data_snapshot import DataSnapshot

        if providers is None:
            from genai_prices.data import providers as bundled

            providers, as_of = bundled, snapshot.bundled_as_of()
        self._snapshot: DataSnapshot = DataSnapshot(providers=providers, from_auto_update=False)
        self.name = name or f"genai-prices {version('genai-prices')}"
        self.as_of = as_of

    def provider_for_url(self, url: str) -> str | None:
        """Catalogue id of the provider whose API lives at this address, or None."""
        try:
            return self._snapshot.find_provider(None, None, url).id
        except LookupError:
            return None

    def provider_for_name(self, name: str) -> str | None:
        """Catalogue id for a client's own word (`"google_genai"` → `"google"`), or None."""
        try:
            return self._snapshot.find_provider(None, _ALIASES.get(name, name), None).id
        except LookupError:
            return None

    def card(self, provider: str, model: str, terms: Terms, at: datetime) -> RateCard | Unpriced:
        """The rate card of a model under some terms at a time.

        Args:
            provider: Catalogue provider id. The same name under another provider is never used: resellers
                charge otherwise.
            model: Model name as requested or as the response reports it.
            terms: Conditions of sale.
            at: Request time, aware.
        """
        found = self._find(provider, model)
        if isinstance(found, Unpriced):
            return found
        prices = found.model.get_prices(at)
        variant = _variant_context(terms)
        if isinstance(variant, Unpriced):
            return variant
        rates = _rates(prices)
        if not any(rate.usd or rate.tiers for rate in rates.values()):
            if found.provider.id == "openrouter" and model.endswith(":free") and not variant:
                return RateCard(rates=MappingProxyType({}), source=_source(self.name, found, "free"), free=True)
            return Unpriced(reason=f"{self.name} has no price for {model} of {provider}")
        label = "standard"
        if variant:
            overrides = self._variant_rates(found, variant, at)
            label = ",".join(f"{key}={value}" for key, value in variant.items())
            if overrides is None:
                return Unpriced(reason=f"{self.name} has no price for {model} at {label}")
            # Only the variant's own token rates count: a standard rate beside a batch price is a wrong price.
            rates = {**{b: r for b, r in rates.items() if b in _UNIT_KEYS}, **overrides}
        source = _source(self.name, found, label)
        openai = found.provider.id in {"openai", "azure"}
        return RateCard(
            rates=MappingProxyType(rates), source=source, inherits=_INHERITS_OPENAI if openai else _INHERITS
        )

    def service_tiers(self, provider: str, model: str) -> tuple[str, ...]:
        """Service tiers the catalogue prices for a model besides the standard one."""
        found = self._find(provider, model)
        if isinstance(found, Unpriced) or not found.own:
            return ()
        tiers = (v.when.get("service_tier") for v in found.model.price_variants or ())
        return tuple(dict.fromkeys(t for t in tiers if t is not None and t not in _STANDARD_TIERS))

    def _find(self, provider: str, model: str) -> _Found | Unpriced:
        try:
            listed, info = self._snapshot.find_provider_model(model, None, provider, None)
        except LookupError:
            return Unpriced(reason=f"{self.name} does not know {model!r} of provider {provider!r}")
        own = any(info is mine for mine in listed.models)
        return _Found(listed, info, own, _rule(info, model.lower()))

    def _variant_rates(self, found: _Found, variant: dict[str, str], at: datetime) -> dict[str, Rate] | None:
        if not found.own:
            return None  # the catalogue states variants for the seller's own list only
        for candidate in found.model.price_variants or ():
            constraint = candidate.constraint
            if candidate.when == variant and (constraint is None or constraint.active(at)):
                return _rates(candidate.prices)
        return None


def _source(name: str, found: _Found, terms: str) -> Source:
    return Source(
        kind="catalogue",
        name=name,
        provider=found.provider.id,
        model=found.model.id,
        rule=found.rule,
        terms=terms,
    )


def _variant_context(terms: Terms) -> dict[str, str] | Unpriced:
    """The catalogue's price context for these terms; empty for standard terms."""
    context: dict[str, str] = {}
    tier = terms.service_tier.lower() if isinstance(terms.service_tier, str) else None
    if tier not in _STANDARD_TIERS and tier is not None:
        context["service_tier"] = tier
    if terms.batch:
        context["processing"] = "batch"
    speed = terms.speed.lower() if terms.speed else None
    if speed not in _STANDARD_SPEEDS and speed is not None:
        context["speed"] = speed
    if len(context) > 1:
        return Unpriced(reason=f"no price known for the combination {context}")
    return context


def _rates(prices: genai.ModelPrice) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for bucket, keys in _TOKEN_KEYS.items():
        for key in keys:
            value = getattr(prices, key, None)
            if value is not None:
                rates[bucket] = _rate(value, _MTOK)
                break
    for bucket, (key, per) in _UNIT_KEYS.items():
        value = getattr(prices, key, None)
        if value is not None:
            rates[bucket] = _rate(value, per)
    return rates


def _rate(value: Decimal | genai.TieredPrices, per: int) -> Rate:
    if isinstance(value, Decimal):
        return Rate(value, per)
    return Rate(value.base, per, tuple(Tier(tier.start, tier.price) for tier in value.tiers))


def _rule(info: genai.ModelInfo, ref: str) -> str:
    """How a name matched; `"prefix"` deserves a second look, since prefixes also catch other models."""
    undated = _DATE_SUFFIX.sub("", ref)
    own = info.id.lower()
    plain, known = _bedrock_name(ref), _bedrock_name(own)
    if ref == own or plain == known:
        return "exact"
    found = "dated" if _DATE_SUFFIX.sub("", plain) == known else "prefix"
    for clause in _clauses(info.match):
        if getattr(clause, "equals", "").lower() == ref:
            return "exact"
        pattern = getattr(clause, "regex", None)
        if pattern is not None and re.fullmatch(pattern, ref):
            found = "pattern"
        starts = getattr(clause, "starts_with", None)
        if starts is not None and ref in {starts, starts.rstrip("-")}:
            return "exact"
        if undated != ref and undated in {starts, getattr(clause, "equals", None), own}:
            found = "dated"
    return found


def _bedrock_name(name: str) -> str:
    """An id of Bedrock's without what says where it runs, and the first revision of a model as the model."""
    return _REVISION.sub("", _REGION.sub("", name))


def _clauses(match: Any) -> list[Any]:
    parts = getattr(match, "or_", None) or getattr(match, "and_", None)
    return [match] if parts is None else [clause for part in parts for clause in _clauses(part)]


@cache
def catalogue() -> Catalogue:
    """The catalogue of this process, loaded at first use: what `ai-budget update-prices` wrote, else the library's."""
    found = snapshot.load()
    if found is None:
        return Catalogue()
    name = f"genai-prices {version('genai-prices')} + data of {found.as_of.isoformat()}"
    return Catalogue(found.providers, name=name, as_of=found.as_of)
