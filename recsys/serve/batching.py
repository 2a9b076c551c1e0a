"""Queries of many requests answered together, a bounded number of tokens at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class BusyError(Exception):
    """More queries wait than the service takes."""


@dataclass
class _Waiting(Generic[Asked, Answer]):
    asked: Asked
    tokens: int
    done: asyncio.Future[Answer]


class Batcher(Generic[Asked, Answer]):
    """Hands waiting queries to a function, in one thread of its own.

    While a batch is answered the next one gathers, so that a lone query waits for nothing and many
    share a pass.

    Args:
        answer: Answers a batch in order; an exception in place of an answer is for its query alone.
        tokens: Most tokens of a batch; a query that is larger is a batch of its own.
        queries: Most queries of a batch.
        waiting: Most queries that may wait.
        observe: Sees the number of queries and tokens of each batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Answer | Exception]],
        tokens: int,
        queries: int,
        waiting: int,
        observe: Callable[[int, int], None] = lambda queries, tokens: None,
    ) -> None:
        self._answer, self._observe = answer, observe
        self._most = (tokens, queries, waiting)
        self._queue: deque[_Waiting[Asked, Answer]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "recsys-model")

    def __len__(self) -> int:
        """Queries that wait."""
        return len(self._queue)

    async def ask(self, asked: Asked, tokens: int) -> Answer:
        """The answer to one query.

        Raises:
            BusyError: Too many wait.
        """
        if len(self._queue) >= self._most[2]:
            raise BusyError
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Asked, Answer] = _Waiting(asked, tokens, loop.create_future())
        self._queue.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return await waiting.done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            batch = self._take()
            if not batch:
                continue
            self._observe(len(batch), sum(each.tokens for each in batch))
            asked = [each.asked for each in batch]
            answers: Sequence[Answer | Exception]
            try:
                answers = await loop.run_in_executor(self._thread, self._answer, asked)
            except Exception as error:
                answers = [error] * len(batch)
            for each, answer in zip(batch, answers, strict=True):
                if each.done.cancelled():
                    continue
                if isinstance(answer, Exception):
                    each.done.set_exception(answer)
                else:
                    each.done.set_result(answer)

    def _take(self) -> list[_Waiting[Asked, Answer]]:
        """The next batch, without those who have gone."""
        most_tokens, most_queries, _ = self._most
        batch: list[_Waiting[Asked, Answer]] = []
        tokens = 0
        while self._queue and len(batch) < most_queries:
            if batch and tokens + self._queue[0].tokens > most_tokens:
                break
            first = self._queue.popleft()
            if not first.done.cancelled():
                batch.append(first)
                tokens += first.tokens
        return batch

    async def close(self) -> None:
        """Answers what waits, and ends the thread."""
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()
