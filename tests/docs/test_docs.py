"""What the documents say about names, tests, links and commands is there. Their code is run by the root conftest.py."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ai_budget_callbacks.cli import main

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()

pytest_plugins = ["ai_budget_callbacks.testing"]


def _name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_test_that_is_named_exists(path):
    for file, function in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", path.read_text()):
        assert (ROOT / file).exists(), f"{file} is named and does not exist"
        if function:
            functions = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "name")}
            assert function in functions, f"{file} has no {function}"


def test_a_guarantee_names_its_test():
    """In the explanation every row of the first table has a test beside it."""
    text = (ROOT / "docs" / "explanation.md").read_text()
    section = text.partition("## What is guaranteed")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        assert re.search(r"`tests/[\w/]+\.py::\w+`", row), f"no test beside: {row}"


def _anchors(path):
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in _anchors(found), f"{target} has no such heading"


def _command_lines(text):
    """Whole lines, and commands inside a sentence; the first must be complete."""
    for line in re.findall(r"^(?:\$ )?(ai-budget .*)$", text, re.M):
        yield line.partition(" #")[0].strip(), True
    for line in re.findall(r"`(ai-budget [^`\n]*)`", text):
        yield line, False


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_command_line_exists(path):
    for line, whole in _command_lines(path.read_text()):
        _, name, *args = shlex.split(line)
        if name.startswith("-"):
            continue
        assert name in main.commands, f"{line}: there is no such command"
        command = main.commands[name]
        try:
            given, rest, _ = command.make_parser(click.Context(command)).parse_args(list(args))
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.message}")
        assert not rest, f"{line}: {rest} is too much"
        missing = [item.name for item in command.params if item.required and not given.get(item.name)]
        assert not (whole and missing), f"{line}: {missing} is missing"


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_option_of_a_command_is_in_the_reference(name):
    for item in main.commands[name].params:
        if isinstance(item, click.Option):
            assert f"`{item.opts[-1]}" in REFERENCE, f"{name} {item.opts[-1]} is not in docs/reference.md"


MODULES = (
    "ai_budget_callbacks",
    "ai_budget_callbacks.langchain",
    "ai_budget_callbacks.llama_index",
    "ai_budget_callbacks.testing",
)


@pytest.mark.parametrize("module", [*MODULES, "ai_budget_callbacks.events"])
def test_every_public_name_is_in_the_reference(module):
    for name in importlib.import_module(module).__all__:
        assert f"`{name}" in REFERENCE, f"{module}.{name} is not in docs/reference.md"


def _public_parts():
    """Arguments, methods and attributes of the public classes and functions."""
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            thing = getattr(importlib.import_module(module), name)
            if not isinstance(thing, type) or issubclass(thing, Exception):
                continue
            for part, value in vars(thing).items():
                if not part.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    yield name, part


# hooks that frameworks call, and what only adapters call
INTERNAL = {
    "BudgetCallbackHandler": {"targets", "note", "forget_root", "saw", "adapted", "who_here", "lose_open"},
    "Meter": {"attach", "register", "reserve", "settle", "release", "close_run", "forget_run", "book_spent", "replay",
              "say", "closed"},
    "Run": {"close_with", "note_call", "note_event", "keep_open", "let_go", "end"},
    "Budget": {"durable", "label", "amount"},
    "MeteredEmbeddings": {"embed_documents", "embed_query", "aembed_documents", "aembed_query"},
    "MeteredReranker": {"compress_documents", "acompress_documents", "model_post_init"},
    "Usage": {"with_units", "add_units"},
}  # fmt: skip


def test_every_public_method_is_in_the_reference():
    missing = [
        f"{name}.{part}"
        for name, part in _public_parts()
        if part not in INTERNAL.get(name, ()) and not re.search(rf"`\.?{part}\b|\.{part}\b", REFERENCE)
    ]
    assert not missing, f"not in docs/reference.md: {missing}"


@pytest.mark.parametrize("name", ["Budget", "Meter", "Price", "track", "install"])
def test_every_argument_is_in_the_reference(name):
    import ai_budget_callbacks

    for argument in inspect.signature(getattr(ai_budget_callbacks, name)).parameters:
        assert re.search(rf"`[^`\n]*\b{argument}\b", REFERENCE), f"{name}({argument}=) is not in docs/reference.md"


def test_the_testing_page_works(tmp_path):
    """Its files, as a user has them, run by pytest."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "how-to" / "testing.md").read_text(), re.S)
    for name, block in zip(("conftest.py", "shop.py", "test_shop.py"), blocks, strict=True):
        (tmp_path / name).write_text(block)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    out = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert "4 passed" in out.stdout, out.stdout + out.stderr


def test_a_deployment_is_priced_as_the_model_it_is_said_to_be():
    """docs/how-to/own-models.md: nothing is sent, a budget of a millionth has no room for either."""
    from langchain_openai import AzureChatOpenAI

    from ai_budget_callbacks import Budget, BudgetExceeded, Price, PriceUnknown
    from ai_budget_callbacks.langchain import BudgetCallbackHandler

    def ask(model, **options):
        handler = BudgetCallbackHandler(Budget(usd="0.000001"), ledger=":memory:", **options)
        address = {"azure_endpoint": "https://example.openai.azure.com", "azure_deployment": "chat-eu"}
        client = AzureChatOpenAI(**address, model=model, api_version="2024-10-21", api_key="x", max_retries=0)
        client.invoke("hi", config={"callbacks": [handler]})

    with pytest.raises(PriceUnknown):
        ask(None)
    with pytest.raises(BudgetExceeded):
        ask("gpt-4o-mini")
    with pytest.raises(BudgetExceeded):
        ask(None, prices={"chat-eu": Price(input="0.165", output="0.66")})


# -- docs/how-to/threads-and-processes.md


async def test_a_block_is_seen_in_tasks_and_in_to_thread(ai_budget):
    import asyncio

    from langchain_openai import ChatOpenAI

    from ai_budget_callbacks import track

    model = ChatOpenAI(model="gpt-4o-mini")
    async with track(meter=ai_budget.meter) as run:
        await asyncio.create_task(model.ainvoke("hi"))
        await asyncio.to_thread(model.invoke, "hi")
        await asyncio.to_thread(model.batch, ["hi", "hi"])
    assert run.summary().calls == len(ai_budget.requests) == 4


def test_a_bound_function_is_limited_after_its_block_ended(ai_budget):
    import threading

    from langchain_openai import ChatOpenAI

    from ai_budget_callbacks import Budget, BudgetExceeded, track

    model, seen = ChatOpenAI(model="gpt-4o-mini"), []
    with track(Budget(calls=1), meter=ai_budget.meter) as run:
        ask = run.bind(lambda: model.invoke("hi"))

    def later():
        for _ in range(3):
            try:
                seen.append(ask().text)
            except BudgetExceeded:
                seen.append("refused")

    thread = threading.Thread(target=later)
    thread.start()
    thread.join()
    assert seen == ["ok", "refused", "refused"]
    assert run.summary().calls == len(ai_budget.requests) == 1


# -- docs/how-to/beyond-models.md


def test_a_tool_that_does_not_fit_does_not_run():
    from langchain_core.tools import tool

    from ai_budget_callbacks import Budget, BudgetExceeded, Price
    from ai_budget_callbacks.langchain import BudgetCallbackHandler

    ran = []

    @tool
    def look_up(query: str) -> str:
        """Look something up, for a fee."""
        ran.append(query)
        return "found"

    handler = BudgetCallbackHandler(
        Budget(usd="0.02"), ledger=":memory:", prices={"tool/look_up": Price(request="0.008")}
    )
    with pytest.raises(BudgetExceeded):
        for query in "abcd":
            look_up.invoke({"query": query}, config={"callbacks": [handler]})
    assert ran == ["a", "b"]
    assert str(handler.summary().cost_usd) == "0.016"
    assert not handler.meter.ledger.open_holds()


def test_embeddings_that_do_not_fit_are_not_sent():
    from langchain_openai import OpenAIEmbeddings

    from ai_budget_callbacks import Budget, BudgetExceeded
    from ai_budget_callbacks.demo.loopback import Reply
    from ai_budget_callbacks.langchain import BudgetCallbackHandler, MeteredEmbeddings
    from tests.support.provider import FarEnd

    with FarEnd(Reply(input_tokens=1000, output_tokens=0)) as far:  # 1000 x 0.02 per million = $0.00002
        plain = OpenAIEmbeddings(
            model="text-embedding-3-small", base_url=far.base_url, api_key="x", check_embedding_ctx_length=False
        )
        handler = BudgetCallbackHandler(Budget(calls=2), Budget(usd="1"), ledger=":memory:")
        embeddings = MeteredEmbeddings(plain, handler)
        with pytest.raises(BudgetExceeded):
            for _ in range(4):
                embeddings.embed_query("a question")
        assert len(far.requests) == 2
        assert handler.summary().cost_usd == far.billed_usd
