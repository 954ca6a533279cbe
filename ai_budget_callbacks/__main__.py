"""`python -m ai_budget_callbacks` is `ai-budget`."""

from ai_budget_callbacks.cli import main

main()
