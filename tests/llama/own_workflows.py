"""Workflows of the tests. Their annotations are no strings: core 0.12.0 reads which events a step takes from them."""

from typing import Any

from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step
from llama_index.core.workflow.retry_policy import ConstantDelayRetryPolicy

__all__ = ["OneStep", "Retried", "SyncStep"]


class OneStep(Workflow):
    """Asks its model once."""

    llm: Any = None

    @step
    async def ask(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=str(await self.llm.acomplete(ev.question)))


class Retried(Workflow):
    """The same, up to four times."""

    llm: Any = None

    @step(retry_policy=ConstantDelayRetryPolicy(delay=0.01, maximum_attempts=4))
    async def ask(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=str(await self.llm.acomplete(ev.question)))


class SyncStep(Workflow):
    """Asks its model once, in a thread."""

    llm: Any = None

    @step
    def ask(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=str(self.llm.complete(ev.question)))
