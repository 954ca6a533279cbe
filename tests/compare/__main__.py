"""`make compare`: genai-prices, litellm and this package on the same answers, counts and costs, in one table.

Each gets its best chance. genai-prices: every flavour of the provider is tried and the one that reads the answer right is
taken; price context and time are given. litellm: the billed counts and the tier are given, in its own usage object, batches
go through its batch helper; it reads no bodies here, so it has no counts of its own. Both are asked under the model's name
in the answer and under the requested one, and their best answer counts. litellm lives in .compare/, made at the first run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_budget_callbacks.pricing import PriceBook
from ai_budget_callbacks.usage import Usage, anthropic
from ai_budget_callbacks.usage.wire import read_body
from tests.compare.cases import Case, goldens, recordings, totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ai_budget_callbacks.usage import Terms

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".compare"
LITELLM = "litellm==1.110.2"
BOOK = PriceBook()
VERDICTS = ("exact", "float noise", "wrong", "silent zero", "refuses")
NOISE = Decimal("1e-9")  # relative: what a sum of floats may be off by and still be right


def judge(usd: Decimal | str, expected: Decimal) -> str:
    """What a cost is beside the right one."""
    if isinstance(usd, str):
        return "refuses"
    if usd == expected:
        return "exact"
    if not usd:
        return "silent zero"
    return "float noise" if abs(usd - expected) <= NOISE * expected else "wrong"


def judge_counts(found: dict[str, int] | None, case: Case) -> str:
    """What counts are beside the billed ones."""
    if found is None:
        return "refuses"
    if found == case.counts:
        return "exact"
    return "wrong" if any(found.values()) else "silent zero"


# -- us


def best(answers: Iterable[Decimal | str], right: Decimal | str) -> Decimal | str:
    """The answer nearest to the right cost, so that each is judged by the best it can do; a refusal is better than 0."""
    every = list(answers)
    costs = [answer for answer in every if isinstance(answer, Decimal) and answer]
    if not costs or isinstance(right, str):
        return next(iter(sorted(every, key=lambda answer: not isinstance(answer, str))))
    return min(costs, key=lambda usd: abs(usd - right))


def ours(case: Case) -> tuple[str, Decimal | str, Usage]:
    found = read_body(
        case.body, headers=case.headers, service_tier=case.service_tier, batch=case.batch, model=case.model
    ).usage
    usage = (found or Usage(buckets={})).with_units(case.units)
    cost = BOOK.price(usage, provider=case.provider, model=case.model, requested=case.model, at=case.at)
    counts = None if found is None and not case.units else totals(dict(usage.buckets))
    return judge_counts(counts, case), cost.usd if cost.usd is not None else str(cost.reason), usage


# -- genai-prices


def bodies(case: Case) -> Iterator[Any]:
    """What of an answer its extractors may be given: all of it, an event, or the merged events of a stream."""
    events = case.body if isinstance(case.body, list) else [case.body]
    if any(isinstance(event, dict) and event.get("type") == "message_start" for event in events):
        yield {"model": case.model, "usage": anthropic.merge_stream(events)}
    for event in reversed(events):
        if isinstance(event, dict):
            yield {"model": case.model, "modelVersion": case.model, **event}
            yield {"response": {"model": case.model, **event}}  # its realtime flavour
            for inner in ("response", "metadata", "message", "delta"):
                if isinstance(event.get(inner), dict):
                    yield {"model": case.model, **event[inner]}


def readings(case: Case) -> Iterator[Any]:
    """Every usage that some flavour of the provider makes of the answer."""
    from genai_prices import extract_usage
    from genai_prices.data import providers

    flavours = next(
        ([e.api_flavor for e in p.extractors or ()] for p in providers if p.id == case.provider), ["default"]
    )
    for body in bodies(case):
        for flavour in flavours:
            try:
                yield extract_usage(body, provider_id=case.provider, api_flavor=flavour).usage
            except (LookupError, ValueError, TypeError, AttributeError):
                continue


def genai_counts(usage: Any) -> dict[str, int]:
    def of(*names: str) -> int:
        return sum(getattr(usage, name, None) or 0 for name in names)

    writes = of("cache_write_tokens") or of("cache_write_5m_tokens", "cache_write_1h_tokens")
    return {
        "input": of("input_tokens"),
        "cache_read": of("cache_read_tokens"),
        "cache_write": writes,
        "output": of("output_tokens"),
    }


def genai(case: Case, terms: Terms) -> tuple[str, list[Decimal | str]]:
    found = list(readings(case))
    if not found:
        return "refuses", ["no extractor reads it"]
    usage = next((each for each in found if genai_counts(each) == case.counts), found[0])
    answers = [genai_cost(case, each, name, terms) for each in (usage, *found) for name in case.names]
    return judge_counts(genai_counts(usage), case), answers


def genai_cost(case: Case, usage: Any, model: str, terms: Terms) -> Decimal | str:
    from genai_prices import calc_price

    context = {"service_tier": terms.service_tier, "processing": "batch" if terms.batch else None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            priced = calc_price(
                usage,
                model,
                provider_id=case.provider,
                genai_request_timestamp=case.at,
                price_context={key: value for key, value in context.items() if value} or None,
            )
    except (LookupError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return priced.total_price


# -- litellm


def environment() -> Path:
    """The Python that has litellm; it is installed at the first run (140 MB)."""
    python = HOME / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", LITELLM]
        subprocess.run(pip, check=True, timeout=300)
    return python


def litellm(cases: list[tuple[Case, Usage]]) -> dict[str, list[Decimal | str]]:
    """What it says by case, of the billed buckets."""
    asked = [
        {
            "id": case.id,
            "provider": case.provider,
            "models": case.names,
            "buckets": case.buckets or dict(usage.buckets),
            "service_tier": usage.terms.service_tier,
            "batch": usage.terms.batch,
        }
        for case, usage in cases
    ]
    said = subprocess.run(
        [str(environment()), str(Path(__file__).with_name("litellm_side.py"))],
        input=json.dumps(asked),
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(said.stdout[said.stdout.index("{") :])
    return {
        name: [text if text.startswith("raises") else Decimal(text) for text in texts]
        for name, texts in answers.items()
    }


# -- the table


def table(title: str, columns: dict[str, Counter[str]]) -> None:
    print(f"\n| {title} | " + " | ".join(VERDICTS) + " |\n|---|" + "---|" * len(VERDICTS))
    for name, counted in columns.items():
        print(f"| {name} | " + " | ".join(str(counted[verdict]) for verdict in VERDICTS) + " |")


def compare(cases: list[Case], *, verbose: bool) -> None:
    read = {case.id: ours(case) for case in cases}
    theirs = {case.id: genai(case, read[case.id][2].terms) for case in cases}
    third = litellm([(case, read[case.id][2]) for case in cases])
    counts: dict[str, Counter[str]] = {"genai-prices": Counter(), "this package": Counter()}
    costs: dict[str, Counter[str]] = {"genai-prices": Counter(), "litellm": Counter(), "this package": Counter()}
    for case in cases:
        counts["this package"][read[case.id][0]] += 1
        counts["genai-prices"][theirs[case.id][0]] += 1
        right = case.usd if case.usd is not None else read[case.id][1]
        answers = {
            "genai-prices": best(theirs[case.id][1], right),
            "litellm": best(third[case.id], right),
            "this package": read[case.id][1],
        }
        if isinstance(right, str) or not right:
            continue
        for name, usd in answers.items():
            verdict = judge(usd, right)
            costs[name][verdict] += 1
            if verbose and verdict not in {"exact", "float noise"}:
                print(f"{verdict:12} {name:13} {case.id}: {str(usd)[:90]}, right: {right}")
    table(f"tokens of {len(cases)} answers", counts)
    table(f"cost of {sum(costs['this package'].values())} of them", costs)


def main() -> None:
    verbose = "-v" in sys.argv
    print("## The golden costs")
    compare(goldens(), verbose=verbose)
    print("\n## Recorded answers whose cost the provider states")
    every = recordings()
    compare([case for case in every if case.usd is not None], verbose=verbose)
    print("\n## All recorded answers; cost beside ours, where we have a price")
    compare(every, verbose=verbose)


if __name__ == "__main__":
    main()
