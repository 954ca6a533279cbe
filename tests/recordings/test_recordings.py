"""Every recorded answer that a LangChain client here can play, through the handler: the ledger has what was billed."""

from __future__ import annotations

import pytest

from tests.recordings.langchain import LANGCHAIN
from tests.recordings.suite import Recordings


# pydantic about Mistral's content lists: LangChain's own copying, no money
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
class TestLangChain(Recordings):
    """Through LangChain's clients."""

    framework = LANGCHAIN
    calls = 435  # 2026-11-25
