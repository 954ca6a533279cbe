"""`ai-budget`: rows to stdout, notes to stderr. Renders; decides nothing."""

from __future__ import annotations

import sys

import click

from ai_budget_callbacks.cli.books import budgets, path, report, runs, show, status, verify
from ai_budget_callbacks.cli.correct import reprice
from ai_budget_callbacks.cli.output import EXIT_WRONG, Commands, fail, told
from ai_budget_callbacks.cli.price import price
from ai_budget_callbacks.cli.prices import update_prices
from ai_budget_callbacks.cli.reconcile import reconcile
from ai_budget_callbacks.cli.whatif import what_if

__all__ = ["main"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ai-budget-callbacks")
def main() -> None:
    """See what LLM calls cost, and where the money went."""


_COMMANDS = (
    budgets, path, price, reconcile, report, reprice, runs, show, status, update_prices, verify, what_if,
)  # fmt: skip
for command in _COMMANDS:
    main.add_command(command)


@main.command()
@click.option("--ledger", default=None, help="Ledger file of the demo. [default: a new temporary file]")
@click.option(
    "--live", is_flag=True, help="Use the real API with OPENAI_API_KEY, capped at one cent by its own budget."
)
def demo(ledger: str | None, live: bool) -> None:  # noqa: FBT001 - a click flag
    """Watch a limit hold: no key and no network needed."""
    try:
        from ai_budget_callbacks.demo.run import run_demo
    except ImportError as error:
        fail(f"The demo needs LangChain ({error.name} is missing): pip install 'ai-budget-callbacks[demo]'", EXIT_WRONG)
    with told():
        sys.exit(run_demo(ledger=ledger, live=live))
