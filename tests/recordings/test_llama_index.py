"""Every recorded answer that a LlamaIndex integration here can play, through the handler: the ledger has the bill."""

from __future__ import annotations

from tests.recordings.llama_index import LLAMA_INDEX
from tests.recordings.suite import Recordings


class TestLlamaIndex(Recordings):
    """Through LlamaIndex's integrations."""

    framework = LLAMA_INDEX
    calls = 360  # 2026-11-25
