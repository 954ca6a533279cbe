"""Rules of the house that a program can see: sizes, patches of our own code, the public names, cheap imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ai_budget_callbacks

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "ai_budget_callbacks").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# words in parts, so that this file does not find itself
FORBIDDEN = [
    ("unittest" + r"\.mock|Magic" + "Mock|" + r"\bmoc" + r"ker\b", "mocks"),
    (r"monkeypatch\.setattr\(\s*[\"']?ai_" + "budget", "patches something of ours"),
    (r"pytest\.mark\.(xf" + "ail|sk" + r"ip)\b", "xfail or unconditional skip"),
]


def code_lines(path: Path) -> int:
    return sum(1 for line in path.read_text().splitlines() if line.strip() and not line.strip().startswith("#"))


def body_sizes(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            doc = ast.get_docstring(node, clean=False)
            size = node.end_lineno - node.body[0].lineno + 1 - (len(doc.splitlines()) if doc else 0)
            yield node, size


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_grows_into_a_second_product(path):
    assert code_lines(path) <= 400, f"{path.name} has {code_lines(path)} lines of code; the house limit is 400"


def test_bodies_stay_short():
    sizes = [(size, f"{path.name}:{node.lineno} {node.name}") for path in MODULES for node, size in body_sizes(path)]
    too_long = [place for size, place in sizes if size > 40]
    assert not too_long, f"bodies over 40 lines: {too_long}"
    ordered = sorted(size for size, _ in sizes)
    assert ordered[int(len(ordered) * 0.9)] <= 20, "the ninth decile of body sizes passed 20 lines"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_tests_patch_nothing_of_ours(path):
    for pattern, what in FORBIDDEN:
        assert not re.search(pattern, path.read_text()), f"{path}: {what}"


def test_every_public_name_is_in_the_reference():
    reference = (ROOT / "docs" / "reference.md").read_text()
    missing = [name for name in ai_budget_callbacks.__all__ if f"`{name}" not in reference]
    assert not missing, f"public and not in docs/reference.md: {missing}"
    for name in ai_budget_callbacks.__all__:
        assert getattr(ai_budget_callbacks, name).__doc__, f"{name} has no docstring"


def test_importing_the_package_loads_no_framework_database_or_price_data():
    heavy = "langchain_core llama_index openai anthropic sqlite3 sqlite_utils genai_prices pydantic click psutil"
    code = f"import sys, ai_budget_callbacks; print([m for m in {heavy.split()!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]", f"import ai_budget_callbacks loads {out.stdout.strip()}"


def test_no_file_records_a_registry_address():
    for name in ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml"):
        assert not (ROOT / name).exists(), f"{name} records download addresses"
    for path in (ROOT / "constraints.txt", *(ROOT / "tests" / "compat").glob("*.txt")):
        assert "://" not in path.read_text(), path


@pytest.mark.parametrize(
    ("extra", "package", "environment"),
    [
        ("langchain", "langchain-core", "oldest"),
        ("demo", "langchain", "early"),
        ("demo", "langchain-openai", "oldest"),
        ("llama-index", "llama-index-core", "llama-oldest"),
        ("demo", "llama-index-llms-openai", "llama-oldest"),
        ("demo", "llama-index-embeddings-openai", "llama-oldest"),
    ],
)
def test_the_floors_are_versions_that_make_compat_runs(extra, package, environment):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    floor = next(item.partition(">=")[2] for item in extras[extra] if item.partition(">=")[0] == package)
    pins = (ROOT / "tests" / "compat" / f"{environment}.txt").read_text()
    assert f"\n{package}=={floor}" in f"\n{pins}", f"{package}>={floor} is promised, {environment} runs another version"
