"""Exact token counts for OpenAI's models, from tokenizer files that are on this disk. Never from the network.

tiktoken (0.14) downloads an encoding's file at its first use, unless its cache has it. So a file is looked for where
tiktoken keeps them, and where llama-index-core (0.12 to 0.14) ships two of them, its hash is checked, and only then is
tiktoken asked, with `TIKTOKEN_CACHE_DIR` (its documented variable) at that folder. Which encoding a model has is what
tiktoken says; a model it does not know is not counted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ai_budget_callbacks.locks import ForkSafeLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["token_counter"]

log = logging.getLogger("ai_budget_callbacks")

_HOST = "https://openaipublic.blob.core.windows.net/encodings/"
# encoding → the file it is read from, and that file's SHA-256 (tiktoken 0.14, tiktoken_ext.openai_public)
_FILES = {
    "cl100k_base": ("cl100k_base", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"),
    "o200k_base": ("o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
    "o200k_harmony": ("o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
}
_VARIABLE = "TIKTOKEN_CACHE_DIR"
_LONGEST = 200_000  # characters, some 0.4 s at worst; counting more takes longer than a tighter bound is worth
_lock = ForkSafeLock()


def token_counter(provider: str, model: str) -> Callable[[str], int | None] | None:
    """What counts a text's tokens as a model does, or None where its tokenizer is not on this disk.

    Args:
        provider: Catalogue provider id: tokenizers of OpenAI alone are public.
        model: As requested.

    Returns:
        A function from text to tokens; its result is None for a text too long to be worth counting.
    """
    if provider not in {"openai", "azure"}:
        return None
    try:
        from tiktoken import encoding_name_for_model

        name = encoding_name_for_model(model)
    except (ImportError, KeyError):
        return None
    return _counter(name)


@cache
def _counter(name: str) -> Callable[[str], int | None] | None:
    folder = _folder(name)
    if folder is None:
        return None
    from tiktoken import get_encoding

    with _lock, _cache_at(folder):
        encoding = get_encoding(name)

    def count(text: str) -> int | None:
        if len(text) > _LONGEST:
            return None
        return len(encoding.encode(text, disallowed_special=()))  # what looks like a special token is text here

    return count


def _folder(name: str) -> Path | None:
    """The first folder that has an encoding's file, whole."""
    if name not in _FILES:
        return None
    file, expected = _FILES[name]
    key = hashlib.sha1(f"{_HOST}{file}.tiktoken".encode(), usedforsecurity=False).hexdigest()
    for folder in _folders():
        path = folder / key
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == expected:
            return folder
    return None


def _folders() -> Iterator[Path]:
    for variable in (_VARIABLE, "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    yield Path(tempfile.gettempdir()) / "data-gym-cache"
    try:
        spec = find_spec("llama_index.core")
    except ModuleNotFoundError:
        return
    for place in (spec.submodule_search_locations if spec is not None else None) or ():
        yield Path(place) / "_static" / "tiktoken_cache"


@contextmanager
def _cache_at(folder: Path) -> Iterator[None]:
    """The cache of tiktoken in a folder, for as long as it reads one file."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
