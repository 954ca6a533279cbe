"""A deployment that is said to be a model, through real clients: held, refused and billed as that model."""

from __future__ import annotations

from decimal import Decimal

import pytest
from langchain_openai import AzureChatOpenAI

from ai_budget_callbacks import Budget, BudgetExceeded, PriceUnknown, SameAs
from ai_budget_callbacks.demo.loopback import ChatWire, Reply
from tests.flow.kit import chat, read_back
from tests.support.provider import FarEnd

# Azure answers with the model's name; the far end bills it at 2.50 and 10
ANSWER = Reply(input_tokens=1_000, output_tokens=100, model="gpt-4o-2024-08-06")
LIST = Decimal("0.0035")  # 1000 x 2.50 + 100 x 10 per million
TENTH_MORE = Decimal("0.00385")


class Azure(FarEnd):
    """The far end with the address of a deployment."""

    wires = {**FarEnd.wires, "/openai/deployments/chat-eu/chat/completions": ChatWire}


@pytest.fixture
def azure():
    with Azure(ANSWER) as far:
        yield far


def client(far, **options):
    return AzureChatOpenAI(
        azure_endpoint=far.base_url.removesuffix("/v1"),
        azure_deployment="chat-eu",
        api_version="2024-10-21",
        api_key="x",
        max_retries=0,
        timeout=20,
        **options,
    )


def test_a_deployment_with_a_factor_is_billed_by_it_and_stops_the_budget(azure, handler, ledger):
    prices = {"chat-eu": SameAs("azure/gpt-4o-2024-08-06", factor="1.1")}
    budget = handler(Budget(usd="0.01"), prices=prices)
    model = client(azure, max_completion_tokens=100)
    with pytest.raises(BudgetExceeded):
        for _ in range(9):
            model.invoke("hi", config={"callbacks": [budget]})
    assert azure.billed_usd == LIST * len(azure.requests)
    assert len(azure.requests) == 3  # 2 x 0.00385 = 0.0077, and a third hold fits into the rest; then 0.01155 are spent
    entries = list(budget.entries())
    assert {entry.cost_usd for entry in entries} == {TENTH_MORE}
    assert {(entry.model, entry.requested_model, entry.response_model) for entry in entries} == {
        ("gpt-4o", "chat-eu", "gpt-4o-2024-08-06")
    }
    assert entries[0].source["declared"] == "prices['chat-eu']"
    assert entries[0].source["factors"] == ["1.1 by prices['chat-eu']"]
    assert [(line["unit_price_usd"], line["list_price_usd"]) for line in entries[0].lines] == [
        ("2.75", "2.5"),
        ("11", "10"),
    ]
    books = read_back(ledger)
    assert (books.booked_usd, books.spent(), books.holds) == (Decimal("0.01155"), [Decimal("0.01155")], [])


def test_a_budget_for_a_model_takes_in_its_deployments(azure, handler):
    match = Budget(usd="1", match={"model": "gpt-4o*"})
    with pytest.raises(PriceUnknown):
        client(azure).invoke("hi", config={"callbacks": [handler(match)]})
    assert not azure.requests
    said = handler(match, prices={"chat-eu": SameAs("azure/gpt-4o")})
    client(azure).invoke("hi", config={"callbacks": [said]})
    (balance,) = said.meter.ledger.balances()
    assert balance.spent == 3_500_000_000


def test_a_discount_is_booked_and_the_list_price_stays_on_the_entry(serve, handler, ledger):
    far = serve(Reply(input_tokens=1_000, output_tokens=100))
    budget = handler(Budget(usd="1"), factors={"openai": "0.85"})
    chat(far, model="gpt-4o").invoke("hi", config={"callbacks": [budget]})
    assert far.billed_usd == LIST
    assert budget.summary().cost_usd == Decimal("0.002975")  # 0.0035 x 0.85
    (entry,) = budget.entries()
    listed = sum(Decimal(line["list_price_usd"]) * line["count"] for line in entry.lines) / 1_000_000
    assert listed == LIST
    assert read_back(ledger).spent() == [Decimal("0.002975")]
