"""What one response consumed (`Usage`) and what one call is (`Call`). Knows no price, ledger or framework.

Every token stands in exactly one bucket, so a cost is a plain sum over buckets. Bucket names are those of
the golden costs; providers' inclusive totals are taken apart by the readers, one file per wire family.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

__all__ = [
    "BUCKETS",
    "INPUT_BUCKETS",
    "OUTPUT_BUCKETS",
    "UNIT_BUCKETS",
    "Call",
    "Other",
    "Request",
    "Terms",
    "Usage",
    "Who",
]

INPUT_BUCKETS = (
    "input_uncached",
    "input_audio",
    "input_image",
    "input_video",
    "input_tool",
    "cache_read",
    "cache_read_audio",
    "cache_read_image",
    "cache_write",
    "cache_write_5m",
    "cache_write_1h",
)
OUTPUT_BUCKETS = ("output_text", "output_reasoning", "output_audio", "output_image", "output_citation")
UNIT_BUCKETS = (
    "web_search",
    "file_search",
    "grounded_request",
    "code_execution",
    "rerank_search_unit",
    "request_fee",
    "audio_seconds",
    "document_pages",
    "images",
    "cache_storage_token_hours",
)
BUCKETS = (*INPUT_BUCKETS, *OUTPUT_BUCKETS, *UNIT_BUCKETS)

_INPUT = frozenset(INPUT_BUCKETS)
_OUTPUT = frozenset(OUTPUT_BUCKETS)
_KNOWN = frozenset(BUCKETS)
_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Conditions of sale: what decides the price besides the counts.

    Attributes:
        service_tier: Tier of the *response* where it says one (`"default"`, `"flex"`, `"priority"`, …).
        batch: Whether the call went through the provider's batch API (usage never says so at OpenAI).
        speed: Provider's speed option, for example Anthropic's `"fast"`.
        inference_geo: Anthropic's data residency, for example `"us"`.
        search_context: Size of the search context (Perplexity's `"low"`, `"medium"`, `"high"`).
    """

    service_tier: str | None = None
    batch: bool = False
    speed: str | None = None
    inference_geo: str | None = None
    search_context: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """What another model consumed inside an answer, billed on top of it (Anthropic's advisor).

    Attributes:
        model: Its name, as the answer says.
        buckets: Non-zero counts by bucket name.
    """

    model: str
    buckets: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counts of one response in disjoint buckets.

    Attributes:
        buckets: Non-zero counts by bucket name (tokens, or units such as searches).
        reader: Which reader made it, for audit.
        raw: The provider's (or framework's) usage object as it came. Never holds content.
        flags: What is odd, and what the framework lost on the way that the price may hang on.
            Odd: `"inconsistent"` (the totals do not add up; the larger reading was taken), `"invalid_count"`,
            `"input_absent"`, `"compaction"` (its tokens are counted in), `"other_model"` (billed usage of another
            model that has no price here), `"unknown_unit"` (billed in a unit that has no bucket),
            `"partly_counted"` (one half was counted by us), `"hold_kept"` (what was seen of the answer bounds nothing,
            so at least its hold stays booked).
            Lost: `"lifetimes_unseen"` (cache writes priced as 5-minute ones), `"searches_counted"` (web searches
            counted in the content, not as billed), `"compaction_unseen"` (its tokens are missing: a lower bound),
            `"caches_unseen"` (a stream's cache reads and writes were dropped: its whole input was counted by us),
            `"billed_units_unseen"` (Cohere's tokens, which exceed what it bills), `"cost_unseen"` (the provider
            states its cost, and the statement was dropped: priced from the catalogue), `"modalities_unseen"` (how much
            of it is audio or images was dropped: all that may be is priced as such).
        terms: Conditions of sale that the response reported.
        others: Usage of other models that this answer bills; in the totals, not in `buckets`.
    """

    buckets: Mapping[str, int]
    reader: str = "counted"
    raw: Any = None
    flags: tuple[str, ...] = ()
    terms: Terms = field(default_factory=Terms)
    others: tuple[Other, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would make a cost wrong: unknown buckets and counts that are not whole and positive."""
        for name, count in self._counts():
            if name not in _KNOWN:
                raise ValueError(f"unknown usage bucket {name!r}; known: {', '.join(BUCKETS)}")
            if type(count) is not int or count <= 0:
                raise ValueError(f"bucket {name} must be a positive int, not {count!r}")

    def _counts(self) -> Iterator[tuple[str, int]]:
        yield from self.buckets.items()
        for other in self.others:
            yield from other.buckets.items()

    @property
    def input_tokens(self) -> int:
        """All input tokens: uncached, cached, written to a cache, audio, images, tool prompts."""
        return sum(count for name, count in self._counts() if name in _INPUT)

    @property
    def output_tokens(self) -> int:
        """All output tokens, reasoning included."""
        return sum(count for name, count in self._counts() if name in _OUTPUT)

    @property
    def total_tokens(self) -> int:
        """Input plus output; what a token budget counts."""
        return self.input_tokens + self.output_tokens

    @property
    def nothing(self) -> bool:
        """True when every count is zero. Beside content that means *absent*, not free."""
        return not self.buckets and not self.others

    def with_units(self, units: Mapping[str, int]) -> Usage:
        """The same usage plus counts the usage object lacks (tool calls, searches)."""
        merged = dict(self.buckets)
        for name, count in units.items():
            if count:
                merged[name] = merged.get(name, 0) + count
        return replace(self, buckets=MappingProxyType(merged))


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who and what a call belongs to. Bound when the call starts, never read at its end.

    Attributes:
        run_id: The outermost `track()` block, else the framework's root run, else None (parents unseen).
        root_seen: Whether `run_id` is really the root; False for a handler in a model's constructor.
        user, thread, agent, node, tool, tool_call_id: As the framework or `track()` said, or None.
        metadata: The user's own metadata, values as text.
        path: From the root run to the direct parent: (id, name) of each chain, agent, graph and tool around the call.
    """

    run_id: str | None = None
    root_seen: bool = False
    user: str | None = None
    thread: str | None = None
    agent: str | None = None
    node: str | None = None
    tool: str | None = None
    tool_call_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    path: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Sizes of a request that is about to be sent; what an estimate is made from. Holds no content.

    Attributes:
        text_bytes: UTF-8 bytes of all message text, the larger of the text and its NFKC form.
        messages: Number of messages.
        tool_bytes: Bytes of the tool and response-format schemas as JSON.
        tools: Number of tools offered.
        max_output_tokens: The caller's bound on output tokens per choice, reasoning included, or None.
        choices: `n`.
        output: Whether an answer can have output tokens: of everything but embeddings and fees.
        cache_control: Whether the request asks for cache writes.
        service_tier: The tier the request pins, or None (then the dearest is assumed for a worst case).
        speed: The speed the request asks for (Anthropic's `"fast"`), or None.
        text_tokens: Tokens of all message text by the model's own tokenizer, or None where it was not asked.
        images: Image parts.
        other_parts: Other content parts whose token count bytes do not bound (audio, files).
        hosted_tools: Provider-run tools offered (web search, code interpreter …), by type.
        background: Whether it is answered later, to somebody else: nothing of this call will say what it took.
    """

    text_bytes: int = 0
    messages: int = 1
    tool_bytes: int = 0
    tools: int = 0
    max_output_tokens: int | None = None
    choices: int = 1
    output: bool = True
    cache_control: bool = False
    service_tier: str | None = None
    speed: str | None = None
    text_tokens: int | None = None
    images: int = 0
    other_parts: int = 0
    hosted_tools: tuple[str, ...] = ()
    background: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that is about to be made, or one use of something else that has a price.

    Attributes:
        id: The framework's call id; with `kind` the ledger's idempotency key.
        kind: `"call"` (one provider response) or `"charge"` (a tool, a retriever, a fee); only calls count in call
            and token budgets.
        framework: `"langchain"`, `"llama_index"` or `"direct"`.
        provider: Catalogue provider id (`"openai"`), or the client's own word where no catalogue knows it; for a charge
            what it is for (`"tool"`, `"retriever"`, `"reranker"`, `"charge"`).
        model: The model name as requested.
        started_at: Aware datetime, UTC.
        who: Attribution.
        request: Sizes.
    """

    id: str
    framework: str
    provider: str
    model: str
    started_at: datetime
    who: Who = field(default_factory=Who)
    request: Request = field(default_factory=Request)
    kind: str = "call"

    @property
    def key(self) -> str:
        """What its hold is found by: the id of a call; a charge may have the id of a call and is another thing."""
        return self.id if self.kind == "call" else f"{self.kind}:{self.id}"
