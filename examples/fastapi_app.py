"""A web app: one handler for all requests, a budget per user and day, 429 or 402 when it is used up, and a stream.

Serve it with `uvicorn fastapi_app:app` (from this directory). As a script it sends itself a few requests.
Needs OPENAI_API_KEY, fastapi, and for the script httpx2 (fastapi's TestClient).
"""

import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse, StreamingResponse
from langchain_openai import ChatOpenAI

from ai_budget_callbacks import Budget, BudgetExceeded, Meter, track
from ai_budget_callbacks.langchain import BudgetCallbackHandler

# Made once, at import: opening the ledger and loading prices must not happen in a request.
meter = Meter(
    [
        Budget(usd="0.0004", per="day", by="user", name="user-day"),
        Budget(usd="100", per="month", name="everybody"),
    ]
)
handler = BudgetCallbackHandler(meter)
model = ChatOpenAI(model="gpt-4o-mini", max_completion_tokens=200, stream_usage=True)
app = FastAPI()


def known_user(x_user: Annotated[str, Header()]) -> str:
    """Whoever your authentication says it is; never a name the caller may choose freely."""
    return x_user


User = Annotated[str, Depends(known_user)]


@app.exception_handler(BudgetExceeded)
def over_budget(_: Request, stop: BudgetExceeded) -> JSONResponse:
    """429 until the window rolls over; 402 where it never does. The exception's numbers stay in the log."""
    if stop.resets_at is None:
        return JSONResponse({"error": "The budget is used up."}, status_code=402)
    wait_s = math.ceil((stop.resets_at - datetime.now(UTC)).total_seconds())
    return JSONResponse(
        {"error": "The budget is used up.", "resets_at": stop.resets_at.isoformat()},
        status_code=429,
        headers={"Retry-After": str(max(wait_s, 1))},
    )


@app.post("/ask")
def ask(question: str, user: User) -> dict[str, str]:
    """The handler in config, the user in metadata."""
    config = {"callbacks": [handler], "metadata": {"user_id": user}}
    return {"answer": model.invoke(question, config=config).text}


@app.post("/ask/stream")
async def ask_stream(question: str, user: User) -> StreamingResponse:
    """A stream is consumed after this function returned, so the block is carried along."""
    with track(meter=meter, user=user) as run:
        pieces = run.wrap(_texts(question))
    first = await anext(pieces, "")  # the call starts here: a refusal comes before the status line is sent

    async def body() -> AsyncIterator[str]:
        try:
            yield first
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()  # a client that went away: what was sent is booked now

    return StreamingResponse(body(), media_type="text/plain")


async def _texts(question: str) -> AsyncIterator[str]:
    async for chunk in model.astream(question):
        yield chunk.text


@app.get("/spent")
def spent(user: User) -> dict[str, str]:
    """What this user has spent today, in USD."""
    (today,) = (balance for balance in meter.balances(user=user) if balance.budget == "user-day")
    return {"spent_usd": str(today.spent), "limit_usd": str(today.limit)}


def main() -> None:
    """A few requests of two users."""
    from fastapi.testclient import TestClient

    with TestClient(app) as client:
        for user, path in [("alice", "/ask")] * 8 + [("bob", "/ask/stream")] * 8:
            response = client.post(path, params={"question": "Tell me a fact."}, headers={"x-user": user})
            print(user, path, response.status_code, response.text, response.headers.get("retry-after", ""))
        for user in ("alice", "bob"):
            print(user, client.get("/spent", headers={"x-user": user}).json())


if __name__ == "__main__":
    main()
