"""Tokenizers of files that are on this disk: the tokenizer's own counts, a whole file or none, and never the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_budget_callbacks import Meter, SameAs
from ai_budget_callbacks.pricing.tokenizer import token_counter

ROOT = Path(__file__).parents[2]
# tiktoken's name of it: the SHA-1 of where it comes from
O200K = "fb374d419588a4632f3f557e76b4b70aebbca790"
SHIPPED = [
    Path(place) / "_static" / "tiktoken_cache"
    for spec in ([find_spec("llama_index.core")] if find_spec("llama_index") else [])
    for place in (spec.submodule_search_locations if spec else None) or ()
]
needs_files = pytest.mark.skipif(
    not any((place / O200K).is_file() for place in SHIPPED), reason="llama-index-core, which has the files, is not here"
)


@needs_files
@pytest.mark.parametrize(
    ("provider", "model", "text", "tokens"),
    [
        ("openai", "gpt-4o", "hello world", 2),  # facts/pricing.md 6: o200k_base
        ("azure", "gpt-4o-2024-08-06", "hello world", 2),
        ("openai", "gpt-4o", "\ufdfa" * 200, 400),
        ("openai", "gpt-4", "\ufdfa" * 200, 600),  # cl100k_base
        ("openai", "text-embedding-3-small", "hello world", 2),
        ("openai", "gpt-oss-120b", "\ufdfa" * 200, 400),  # o200k_harmony
        ("openai", "gpt-4o", "<|endoftext|>", 7),  # a special token is text: seven tokens, not one
        ("openai", "gpt-4o", "", 0),
        ("openai", "gpt-4o", "a" * 200_001, None),
    ],
)
def test_counts_are_the_tokenizers(provider, model, text, tokens):
    count = token_counter(provider, model)
    assert count is not None
    assert count(text) == tokens


@needs_files
def test_a_text_of_the_longest_size_is_counted():
    count = token_counter("openai", "gpt-4o")
    assert count is not None
    assert count("a " * 100_000) == 100_001


@needs_files
@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_a_count_is_never_more_than_the_bytes(text):
    count = token_counter("openai", "gpt-4o")
    assert count is not None
    assert count(text) <= len(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    ("provider", "model"),
    [("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-nobody-knows"), ("google", "gpt-4o"), ("openai", "davinci")],
)
def test_no_other_model_is_counted(provider, model):
    assert token_counter(provider, model) is None


ALONE = """
import os, socket, sys, types
def refuse(*args, **kwargs): raise SystemExit("the network was asked")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
{before}
from ai_budget_callbacks.pricing.tokenizer import token_counter
count = token_counter("openai", "gpt-4o")
print(count and count("hello world"), os.environ.get("TIKTOKEN_CACHE_DIR"))
"""
NO_LLAMA = 'sys.modules["llama_index"] = None'


def asked(tmp_path: Path, before: str = NO_LLAMA, **variables: str) -> list[str]:
    """What a process of its own counts, and what its variable is afterwards."""
    mine = {"TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "TMPDIR"}
    env = {name: value for name, value in os.environ.items() if name not in mine}
    env |= {"TMPDIR": str(tmp_path / "temporary"), **variables}
    command = [sys.executable, "-c", ALONE.format(before=before)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def folders(tmp_path):
    """A temporary folder without the file, one with it whole, one with it damaged."""
    for name in ("temporary", "whole", "damaged"):
        (tmp_path / name).mkdir()
    if any((place / O200K).is_file() for place in SHIPPED):
        shutil.copy(next(place for place in SHIPPED if (place / O200K).is_file()) / O200K, tmp_path / "whole")
    (tmp_path / "damaged" / O200K).write_bytes(b"IQ== 0\n")
    return tmp_path


@needs_files
def test_a_file_is_found_where_tiktoken_keeps_it(folders):
    whole, damaged = str(folders / "whole"), str(folders / "damaged")
    assert asked(folders, TIKTOKEN_CACHE_DIR=whole) == ["2", whole]
    assert asked(folders, DATA_GYM_CACHE_DIR=whole) == ["2", "None"]
    assert asked(folders, TIKTOKEN_CACHE_DIR=damaged, DATA_GYM_CACHE_DIR=whole) == ["2", damaged]
    assert (folders / "damaged" / O200K).exists(), "a damaged file was thrown away"
    shutil.copytree(whole, folders / "temporary" / "data-gym-cache")
    assert asked(folders) == ["2", "None"]


@needs_files
def test_a_file_is_found_where_llama_index_ships_it(folders):
    assert asked(folders, before="") == ["2", "None"]


@pytest.mark.parametrize(
    "before",
    [
        NO_LLAMA,
        'sys.modules["llama_index"] = None; sys.modules["tiktoken"] = None',
        # somebody else's part of the namespace, without the core
        'sys.modules["llama_index"] = types.ModuleType("llama_index"); sys.modules["llama_index"].__path__ = []',
    ],
    ids=["no llama_index", "no tiktoken", "no core"],
)
@pytest.mark.parametrize("place", ["temporary", "damaged"])
def test_a_tokenizer_that_is_not_on_disk_is_not_fetched(folders, place, before):
    assert asked(folders, before, TIKTOKEN_CACHE_DIR=str(folders / place)) == ["None", str(folders / place)]
    assert (folders / place / O200K).exists() == (place == "damaged"), "a damaged file was thrown away"


@needs_files
@pytest.mark.parametrize(("reserve", "counts"), [("worst_case", True), ("expected", False), ("none", False)])
def test_a_meter_counts_prompts_where_it_holds_worst_cases_and_nowhere_else(reserve, counts):
    prices = {"chat-eu": SameAs("openai/gpt-4o"), "gpt-4": SameAs("anthropic/claude-opus-4-5")}
    meter = Meter(ledger=":memory:", reserve=reserve, prices=prices)
    for provider, model in (("openai", "gpt-4o"), ("azure", "chat-eu")):
        count = meter.token_counter(provider, model)
        assert (count is not None and count("hello world") == 2) == counts
    assert meter.token_counter("openai", "gpt-4") is None, "what it is said to be has no public tokenizer"
    meter.close()
