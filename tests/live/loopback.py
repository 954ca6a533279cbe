"""`python -m tests.live.loopback`: record the project's cassettes from its own loopback provider.

Until someone runs `make record` with keys, tests/flow/test_cassettes.py plays these, and they say where they are from.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from ai_budget_callbacks import Meter
from ai_budget_callbacks.demo.loopback import Reply, ToolCall
from tests.live.scenarios import WAYS, agrees, client
from tests.live.tapes import CASSETTES, NOTE, recorder
from tests.support.provider import ClaudeReply, FarEnd

ANSWER = Reply(text="Four.", input_tokens=1000, cached_tokens=400, output_tokens=100)
CLAUDE = ClaudeReply(text="Four.", input_tokens=1000, cached_tokens=400, write_5m_tokens=200, output_tokens=100)
ASKS = Reply(text="", tool_calls=(ToolCall("add", {"a": 2, "b": 2}),), input_tokens=1000, output_tokens=50)

SCRIPTS = {
    "openai-invoke": ANSWER,
    "openai-stream": ANSWER,
    "openai-agent": [ASKS, ANSWER],
    "anthropic-invoke": CLAUDE,
    "anthropic-stream": CLAUDE,
}


async def record(name: str, folder: Path) -> None:
    """One cassette."""
    provider, _, way = name.partition("-")
    meter = Meter(ledger=folder / f"{name}.db")
    path = CASSETTES / f"{name}.yaml"
    with FarEnd(SCRIPTS[name]) as far:
        address = far.anthropic_url if provider == "anthropic" else far.base_url
        with recorder(path) as tape:
            run = await WAYS[way](client(provider, "sk-loopback", address), meter)
        agrees(provider, run, tape)
    meter.close()
    path.write_text(NOTE + path.read_text(encoding="utf-8"), encoding="utf-8")


async def main() -> None:
    """All of them."""
    CASSETTES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in SCRIPTS:
            await record(name, Path(folder))
            print(CASSETTES / f"{name}.yaml")


if __name__ == "__main__":
    asyncio.run(main())
