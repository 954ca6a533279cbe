"""Embeddings and rerankers: LangChain fires no event for them, so a wrapper begins and ends their calls.

They count for the handlers of the chain, tool or node they are used in, for the handlers and meters they are given,
for `track()` blocks and for the installed meter; where there is none of these, for the default meter.
"""

from __future__ import annotations

import copy
import logging
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict, PrivateAttr

from ai_budget_callbacks.blocks import current_blocks
from ai_budget_callbacks.charges import charge_call, one_use
from ai_budget_callbacks.errors import AIBudgetError, ConfigError, Refusal
from ai_budget_callbacks.inflight import Target, begin, finish_all, withdraw
from ai_budget_callbacks.langchain.around import look_around
from ai_budget_callbacks.langchain.capture import CaptureHandler
from ai_budget_callbacks.langchain.errors import adapted
from ai_budget_callbacks.langchain.failures import judge
from ai_budget_callbacks.langchain.request import client_url
from ai_budget_callbacks.langchain.tracking import tracking_handler
from ai_budget_callbacks.meter import Meter, OpenCall, Outcome
from ai_budget_callbacks.scope import default_meter
from ai_budget_callbacks.sizes import text_bytes
from ai_budget_callbacks.usage import Call, Request, Who, openai

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

__all__ = ["MeteredEmbeddings", "MeteredReranker"]

log = logging.getLogger("ai_budget_callbacks")


class _Use:
    """One call while it is made.

    Attributes:
        outcome: What came back; without it the call ends as unknown.
    """

    outcome: Outcome | None = None


class _Counter:
    """Who counts a wrapper's calls.

    Args:
        to: Handlers and meters it was given.
        fee: Kind and name of what has a price for each use; None for a model.

    Raises:
        ConfigError: Something else.
    """

    def __init__(self, to: Sequence[CaptureHandler | Meter], fee: tuple[str, str] | None = None) -> None:
        self._fee = fee
        for item in to:
            if not isinstance(item, (CaptureHandler, Meter)):
                raise ConfigError(f"A BudgetCallbackHandler or a Meter is expected, not {item!r}.")
        self._handlers = [item for item in to if isinstance(item, CaptureHandler)]
        self._meters = [item for item in to if isinstance(item, Meter)]

    @contextmanager
    def counted(self, build: Callable[[Who, str, Meter], Call], callbacks: Any = None) -> Iterator[_Use]:
        """Hold before the body, book after it; an error in it is judged as one of a model call.

        Args:
            build: Makes the call, given who it belongs to, its id, and the meter that names its provider.
            callbacks: Callbacks that the user was handed.

        Raises:
            BudgetExceeded, PriceUnknown, LedgerError: Before the body runs.
        """
        around, runs = look_around(callbacks), current_blocks()
        handlers = [item for item in (*self._handlers, *around.handlers) if isinstance(item, CaptureHandler)]
        handlers = list(dict.fromkeys((*handlers, tracking_handler)))
        mark, call_id = object(), str(uuid.uuid4())
        targets = [(handler, target) for handler in handlers for target in handler.targets(runs)]
        targets += [(tracking_handler, Target(meter=meter)) for meter in self._meters]
        targets = self._wanted(targets or [(tracking_handler, Target(meter=default_meter()))])
        call = build(around.who(handlers, runs, own_id=call_id), call_id, targets[0][1].meter)
        opened: list[tuple[CaptureHandler, Meter, OpenCall]] = []
        for handler, target in targets:
            handler.saw(call=False)
            try:
                opened.append((handler, target.meter, begin(call, target, runs, mark=mark, forget=lambda: None)))
            except BaseException as error:
                withdraw(mark)
                if isinstance(error, Refusal):
                    handler.note(error)
                raise adapted(error) if isinstance(error, AIBudgetError) else error from None
        use = _Use()
        try:
            yield use
        except BaseException as error:
            _end(opened, *_judged(error, call), quiet=True)
            raise
        _end(opened, use.outcome or Outcome(kind="unknown", reason="nothing was said of its outcome"), "")

    def _wanted(self, targets: list[tuple[CaptureHandler, Target]]) -> list[tuple[CaptureHandler, Target]]:
        """Those that have a price for a use; of a model call everyone."""
        if self._fee is None:
            return targets
        priced = [pair for pair in targets if pair[1].meter.prices.fee(*self._fee) is not None]
        if not priced:
            key = "/".join(self._fee)
            raise ConfigError(
                f"No meter that counts this {self._fee[0]} has a price for it, so it would cost nothing. Give one: "
                f'prices={{"{key}": Price(request="0.002")}}.'
            )
        return priced


def _judged(error: BaseException, call: Call) -> tuple[Outcome | None, str]:
    try:
        failure = judge(error, None, choices=1, provider=call.provider)
    except Exception as fault:  # ours: the caller keeps the error, and nothing is given back
        log.exception("A failure of %r could not be judged and is booked as unknown.", call.model)
        reason = f"its failure could not be judged ({type(fault).__name__})"
        return Outcome(kind="unknown", reason=reason), reason
    return failure.outcome, failure.reason


def _end(
    opened: Sequence[tuple[CaptureHandler, Meter, OpenCall]],
    outcome: Outcome | None,
    reason: str,
    *,
    quiet: bool = False,
) -> None:
    """End a call at every meter; the first thing that must be raised is raised after all have committed."""
    first: AIBudgetError | None = None
    for handler, meter, item in opened:
        error = finish_all([(meter, item)], outcome, reason)
        if isinstance(error, Refusal):
            handler.note(error)
        first = first or error
    if first is not None and not quiet:
        raise adapted(first) from None


class MeteredEmbeddings(Embeddings):
    """An embeddings model whose calls are counted, priced and refused like those of a chat model.

    OpenAI and Azure OpenAI (langchain-openai 1.x): each request is one entry with the usage the provider reported,
    read from the client in the model's `client` and `async_client` fields; the given object is not changed. Any other
    class: each method call is one entry, counted from the texts and marked `estimated`.

    Args:
        embeddings: The model.
        to: Handlers or meters that count it, besides those of the chain it is used in.
        provider, model: What to price it as, where the object does not say.

    Raises:
        ConfigError: `to` is something else, or the model's name is not known.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *to: CaptureHandler | Meter,
        provider: str | None = None,
        model: str | None = None,
    ) -> None:
        self._counter = _Counter(to)
        name = model or getattr(embeddings, "model", None) or getattr(embeddings, "model_name", None)
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{type(embeddings).__name__} does not say its model; give MeteredEmbeddings(…, model=).")
        self._model = name
        self._word = provider or _package(embeddings)
        self._url = None if provider else client_url(embeddings)
        self._on_wire = any(base.__module__.startswith("langchain_openai.") for base in type(embeddings).__mro__)
        self.embeddings = self._recording(embeddings) if self._on_wire else embeddings

    def _recording(self, embeddings: Any) -> Any:
        """A copy whose clients tell us of every request: LangChain drops the usage of embeddings (1.8.3)."""
        seen = copy.copy(embeddings)
        seen.client = embeddings.client and _Client(self._request, embeddings.client)
        seen.async_client = embeddings.async_client and _AsyncClient(self._request, embeddings.async_client)
        return seen

    def _request(self, inputs: Any) -> AbstractContextManager[_Use]:
        """Hold for one request to the provider; what is yielded takes its outcome."""
        return self._counter.counted(self._call(inputs))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts: see `Embeddings.embed_documents`."""
        if self._on_wire:
            return self.embeddings.embed_documents(texts)
        with self._counter.counted(self._call(texts)) as use:
            vectors = self.embeddings.embed_documents(texts)
            use.outcome = _counted(vectors)
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed one text: see `Embeddings.embed_query`."""
        if self._on_wire:
            return self.embeddings.embed_query(text)
        with self._counter.counted(self._call([text])) as use:
            vector = self.embeddings.embed_query(text)
            use.outcome = _counted(vector)
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts: see `Embeddings.aembed_documents`."""
        if self._on_wire:
            return await self.embeddings.aembed_documents(texts)
        with self._counter.counted(self._call(texts)) as use:
            vectors = await self.embeddings.aembed_documents(texts)
            use.outcome = _counted(vectors)
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """Embed one text: see `Embeddings.aembed_query`."""
        if self._on_wire:
            return await self.embeddings.aembed_query(text)
        with self._counter.counted(self._call([text])) as use:
            vector = await self.embeddings.aembed_query(text)
            use.outcome = _counted(vector)
        return vector

    def _call(self, inputs: Any) -> Callable[[Who, str, Meter], Call]:
        def build(who: Who, call_id: str, meter: Meter) -> Call:
            return Call(
                id=call_id,
                framework="langchain",
                provider=meter.prices.provider(self._url, self._word)[0],
                model=self._model,
                started_at=datetime.now(UTC),
                who=who,
                request=Request(text_bytes=_size(inputs), messages=0, output=False),
            )

        return build


def _package(embeddings: Embeddings) -> str:
    """The integration an object's class comes from, or its nearest base's: users derive classes of their own."""
    packages = [base.__module__.partition(".")[0] for base in type(embeddings).__mro__]
    known = (name for name in packages if name.startswith("langchain_") and name != "langchain_core")
    return next(known, packages[0]).removeprefix("langchain_")


def _size(inputs: Any) -> int:
    """UTF-8 bytes of texts; a token id (OpenAI's client may send those) as three, which is more than a token's due."""
    if isinstance(inputs, str):
        return text_bytes(inputs)
    if isinstance(inputs, int):
        return 3
    return sum(map(_size, inputs))


def _counted(vectors: Any) -> Outcome:
    return Outcome(kind="answer", reason="the client reports no usage; counted from the texts", response=vectors)


def _outcome(response: Any) -> Outcome:
    """The outcome of an OpenAI embeddings response (openai 1 to 3: `usage.prompt_tokens`, `model`)."""
    try:
        body = response if isinstance(response, dict) else response.model_dump(exclude={"data"})
        usage, model = openai.read(body.get("usage") or {}), body.get("model")
    except Exception as error:  # ours: the vectors were paid for and are the caller's
        log.exception("An embeddings response could not be read and is booked as unknown.")
        return Outcome(
            kind="unknown", reason=f"its usage could not be read ({type(error).__name__})", response=response
        )
    return Outcome(
        kind="answer", usage=usage, response_model=model if isinstance(model, str) else None, response=response
    )


class _Client:
    """The `client` of an OpenAI embeddings model: `create` is counted, everything else is the client's own."""

    def __init__(self, request: Callable[[Any], AbstractContextManager[_Use]], client: Any) -> None:
        self._request = request
        self._client = client

    def create(self, **kwargs: Any) -> Any:
        """One request."""
        with self._request(kwargs.get("input", "")) as use:
            response = self._client.create(**kwargs)
            use.outcome = _outcome(response)
        return response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class _AsyncClient(_Client):
    """The same for `async_client`."""

    async def create(self, **kwargs: Any) -> Any:
        """One request."""
        with self._request(kwargs.get("input", "")) as use:
            response = await self._client.create(**kwargs)
            use.outcome = _outcome(response)
        return response


class MeteredReranker(BaseDocumentCompressor):
    """A document compressor with a fee for each use: `prices={"reranker/NAME": Price(request="0.002")}`.

    Rerankers fire no events in LangChain (langchain-core 1.8.3).

    Args:
        reranker: The compressor.
        to: Handlers or meters that count it, besides those of the chain it is used in.
        name: Its name in the prices; its class name where none is given.

    Raises:
        ConfigError: `to` is something else; at its use, where no meter that counts it has a price for it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    reranker: BaseDocumentCompressor
    name: str
    _counter: Any = PrivateAttr()

    def __init__(self, reranker: BaseDocumentCompressor, *to: CaptureHandler | Meter, name: str | None = None) -> None:
        super().__init__(reranker=reranker, name=name or type(reranker).__name__)  # type: ignore[call-arg]
        self._counter = _Counter(to, fee=("reranker", self.name))

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        """Rerank: see `BaseDocumentCompressor.compress_documents`."""
        with self._counter.counted(self._call, callbacks) as use:
            found = self.reranker.compress_documents(documents, query, callbacks=callbacks)
            use.outcome = one_use(found)
        return found

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        """Rerank: see `BaseDocumentCompressor.acompress_documents`."""
        with self._counter.counted(self._call, callbacks) as use:
            found = await self.reranker.acompress_documents(documents, query, callbacks=callbacks)
            use.outcome = one_use(found)
        return found

    def _call(self, who: Who, call_id: str, meter: Meter) -> Call:  # noqa: ARG002 - as the counter asks
        return charge_call("reranker", self.name, who, charge_id=call_id, framework="langchain")
