"""Every example runs, against the loopback provider, and leaves books that equal its bill."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from ai_budget_callbacks.demo.loopback import LoopbackProvider, Reply
from tests.flow.kit import read_back

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_its_books_equal_the_bill(path, tmp_path):
    ledger = tmp_path / "spend.db"
    with LoopbackProvider(Reply(text="An answer.", input_tokens=300, output_tokens=20)) as provider:
        env = os.environ | {
            "OPENAI_API_BASE": provider.base_url, "OPENAI_API_KEY": "x", "AI_BUDGET_LEDGER": str(ledger),
        }  # fmt: skip
        out = subprocess.run(
            [sys.executable, str(path)], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert out.returncode == 0, out.stderr
        booked = sum(Decimal(entry["cost_pico"]) for entry in read_back(ledger).entries) / 10**12
        assert provider.requests, "the example made no call"
        assert booked == provider.billed_usd, f"booked {booked}, billed {provider.billed_usd}"
