"""What is imported when, and what fails to import: in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run(code, folder=None):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=folder,
    )
    return done.stdout.strip(), done.stderr


HEAD = """
from ai_budget_callbacks import Budget, BudgetExceeded, Meter, track
meter = Meter(ledger=":memory:")
"""


def test_llama_index_may_be_imported_inside_the_block():
    out, errors = run(
        HEAD
        + """
from tests.support.provider import FarEnd
with FarEnd() as far, track(Budget(calls=1), meter=meter) as run:
    from llama_index.llms.openai import OpenAI
    model = OpenAI(model="gpt-4o-mini", api_base=far.base_url, api_key="x", max_retries=0)
    model.complete("a")
    try:
        model.complete("b")
    except BudgetExceeded:
        print("stopped", len(far.requests), run.summary().calls)
    run.refusal = None
"""
    )
    assert out == "stopped 1 1", errors


def test_track_alone_imports_no_framework():
    out, errors = run(
        HEAD
        + """
import sys
with track(Budget(calls=1), meter=meter):
    pass
print([name for name in ("llama_index.core", "langchain_core") if name in sys.modules])
"""
    )
    assert out == "[]", errors


def test_an_integration_that_raises_on_import_hurts_nobody_else(tmp_path):
    (tmp_path / "broken_integration.py").write_text(
        "import llama_index.core\nraise ImportError('cannot import name ThinkingBlock')\n"
    )
    out, errors = run(
        HEAD
        + f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from tests.support.provider import FarEnd
with FarEnd() as far, track(Budget(calls=2), meter=meter) as run:
    try:
        import broken_integration
    except ImportError as error:
        print(error)
    from llama_index.llms.openai import OpenAI
    OpenAI(model="gpt-4o-mini", api_base=far.base_url, api_key="x", max_retries=0).complete("a")
    print(len(far.requests), run.summary().calls)
"""
    )
    assert out == "cannot import name ThinkingBlock\n1 1", errors


def test_a_framework_that_cannot_be_attached_to_says_so_at_its_import(tmp_path):
    """A core without what the adapter needs: calls through it would go uncounted."""
    core = tmp_path / "llama_index" / "core"
    core.mkdir(parents=True)
    (core / "__init__.py").write_text("")
    out, errors = run(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        + HEAD
        + """
with track(Budget(calls=1), meter=meter):
    try:
        import llama_index.core
    except Exception as error:
        print(type(error).__name__, str(error)[:100])
"""
    )
    assert out.startswith("ConfigError track() and install() cannot be attached to llama_index.core"), errors


def test_the_handler_of_one_framework_needs_no_other(tmp_path):
    out, errors = run(
        """
import sys
import ai_budget_callbacks.llama_index
print("langchain_core" in sys.modules)
"""
    )
    assert out == "False", errors


@pytest.mark.parametrize("name", ["llama_index", "llama_index.capture", "llama_index.tracking"])
def test_our_own_adapter_may_be_the_first_import_of_llama_index_after_a_block(name):
    out, errors = run(
        HEAD
        + f"""
with track(meter=meter):
    import ai_budget_callbacks.{name}
from ai_budget_callbacks.llama_index import BudgetCallbackHandler
print(BudgetCallbackHandler.__name__)
"""
    )
    assert out == "BudgetCallbackHandler", errors  # core 0.12.0 has warnings of pydantic's to say
