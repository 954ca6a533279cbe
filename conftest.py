"""Every block in README.md and docs/ is run: Python, the command line, and the output that is shown for them.

A page is one session, with a provider on 127.0.0.1, a key and a ledger of its own. A `text` block is what the Python
block before it prints; a `console` block is commands after `$` and what they print. `…` stands for what changes from
run to run: a part of a line, or any number of lines.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

# prices are those of the installed library, whatever was fetched or declared for this user
os.environ["AI_BUDGET_PRICE_DATA"] = str(Path(__file__).with_name("no-price-data.json"))
os.environ.pop("AI_BUDGET_PRICES", None)

_FRAMEWORK = r"^\s*(?:from|import) (?:ai_budget_callbacks\.)?(langchain|langgraph|llama_index)"
_ANY_PART, _ANY_LINES = ".*?", r"(?:.*\n)*?"


@pytest.fixture(scope="module")
def documented_world(tmp_path_factory):
    """What a reader has: a provider behind OPENAI_API_BASE, a key, and an own ledger."""
    from ai_budget_callbacks.demo.loopback import Reply
    from ai_budget_callbacks.scope import installed, reinstall
    from tests.support.provider import FarEnd

    def answer(request):
        return Reply(text="A fact.", input_tokens=400, output_tokens=0 if "embeddings" in request.path else 60)

    folder, before = tmp_path_factory.mktemp("page"), installed()
    with (
        pytest.MonkeyPatch.context() as patch,
        FarEnd(answer) as provider,
    ):
        patch.setenv("OPENAI_API_BASE", provider.base_url)
        patch.setenv("OPENAI_API_KEY", "no-key-needed")
        patch.setenv("AI_BUDGET_LEDGER", str(folder / "docs.db"))
        patch.setenv("LANGSMITH_TRACING", "false")
        patch.chdir(folder)
        yield provider
        reinstall(before)
        _forget_settings()


def _forget_settings():
    """No page leaves its handlers or models in LlamaIndex's process-wide settings."""
    if "llama_index.core" not in sys.modules:
        return
    from llama_index.core import Settings
    from llama_index.core.callbacks import CallbackManager

    Settings.callback_manager = CallbackManager()
    Settings.callback_manager.set_handlers([])
    Settings._llm = Settings._embed_model = None  # noqa: SLF001 - it has no way to forget them


def _needs_framework(example):
    """Leave a block out where the framework it imports is not installed (`make compat` has one at a time)."""
    found = re.search(_FRAMEWORK, example.parsed, re.MULTILINE)
    if found is None:
        return
    package = "llama_index" if found[1] == "llama_index" else "langchain_core"
    if importlib.util.find_spec(package) is None:
        example.namespace["_printed"] = None
        pytest.skip(f"{package} is not installed here")


def run_python(example):
    """Run a block and keep what it prints for the `text` block after it."""
    _needs_framework(example)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        PythonEvaluator()(example)
    example.namespace["_printed"] = out.getvalue()
    print(out.getvalue(), end="")  # noqa: T201 - for whoever looks at a failure


def compare_with_printed(example):
    """What a `text` block shows is what the block before it printed."""
    printed = example.namespace.get("_printed", "")
    if printed is None:
        pytest.skip("the block before it was left out")
    _compare(example.parsed, printed)


def run_commands(example):
    """Run the commands of a `console` block and compare what they print."""
    from click.testing import CliRunner

    from ai_budget_callbacks.cli import main

    for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        program, *args = shlex.split(line)
        assert program == "ai-budget", f"{line!r} is not run; use a block of another language for other programs"
        result = CliRunner().invoke(main, args)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        _compare(shown, result.output)


def _compare(shown, printed):
    want, got = (
        # trailing blanks come from tables, and editors remove them
        "".join(f"{line.rstrip()}\n" for line in text.strip().splitlines())
        for text in (shown, printed)
    )
    lines = (
        _ANY_LINES if line == "…\n" else re.escape(line).replace("…", _ANY_PART)
        for line in want.splitlines(keepends=True)
    )
    if re.fullmatch("".join(lines), got) is None:
        pytest.fail(f"the page shows\n{want}\nand what is printed is\n{got}", pytrace=False)


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("python", run_python),
        CodeBlockParser("text", compare_with_printed),
        CodeBlockParser("console", run_commands),
    ],
    patterns=["README.md", "docs/*.md", "docs/how-to/*.md"],
    excludes=["docs/how-to/testing.md"],  # shows whole files; tests/docs/test_docs.py runs them with pytest
    fixtures=["documented_world"],
).pytest()
