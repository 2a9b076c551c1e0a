"""What the service does with a request, apart from HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from recsys.errors import ConfigError, RecsysError, UnknownIdError, raise_file_error
from recsys.printable import escape_line
from recsys.runtime.locks import acquire_lock
from recsys.serve.batching import Batcher
from recsys.serve.bodies import (
    Ask,
    ConverseBody,
    ExplainBody,
    FeedbackBody,
    ForgetBody,
    ItemsBody,
    RecommendBody,
    Setting,
)
from recsys.serve.conversations import Lines
from recsys.serve.metrics import ServiceMetrics
from recsys.serve.model import Answered, Asked, ModelHolder
from recsys.serve.options import ServeOptions
from recsys.serve.records.feedback import FeedbackLog, Reactions
from recsys.serve.records.items import ChangedItems, ItemRow, merge_rows
from recsys.trained.queries import ANY, Answering, Choice, Query

_LOCK = "service.lock"


class Service:
    """A model, what people said of its items, and the queue of those who ask.

    Args:
        options: What to serve.
        load: Opens the model of a folder.

    Raises:
        ConfigError: Another service has the state's folder.
        DataError: The model or the state cannot be read.
    """

    def __init__(self, options: ServeOptions, load: Callable[[Path], Answering]) -> None:
        self.options, self.metrics = options, ServiceMetrics()
        self._held = ExitStack()
        self._hold(options.state)
        try:
            self.feedback = FeedbackLog(options.state)
            self.items = ChangedItems(options.state)
            self.holder = ModelHolder(options.folder, load, self.items.added)
        except BaseException:
            self._held.close()
            raise
        limits = options.limits
        self.batcher: Batcher[Asked, Answered] = Batcher(
            self.holder.answer,
            limits.batch_tokens,
            limits.batch_queries,
            limits.queue,
            self.metrics.observe_batch,
        )
        self._watcher: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()  # of the model: one change at a time
        self.metrics.version.set(1)
        self.metrics.queue.set_function(lambda: len(self.batcher))

    def _hold(self, state: Path) -> None:
        """Keeps others out of the state's folder while this service lives."""
        with raise_file_error():
            state.mkdir(parents=True, exist_ok=True)
            file = self._held.enter_context((state / _LOCK).open("ab"))
        if not acquire_lock(file):
            self._held.close()
            raise ConfigError(
                f"{state} is in use by another service; stop it, or give state= another folder."
            )

    async def recommend(self, body: RecommendBody) -> Answered:
        """The best items, without what was removed or the user spoke of.

        Raises:
            ConfigError: The model knows nothing of what is asked, or a limit is passed.
            UnknownIdError: There is no such user or item.
            DataError: The moment is no time, or nothing can be had then.
            BusyError: Too many wait.
        """
        self._check_limits(body)
        said = self._get_reactions(body)
        reacted = said.events.keys() if body.exclude_seen else said.disliked
        left_out = self.items.removed | reacted
        choice = Choice(body.where, body.exclude_seen, tuple(body.columns))
        answer = await self._ask(make_asked(body, body.k + len(left_out), choice), said)
        kept = [row for row in answer.rows if row["item"] not in left_out][: body.k]
        return replace(answer, rows=[{**row, "rank": rank} for rank, row in enumerate(kept, 1)])

    async def explain(self, body: ExplainBody) -> Answered:
        """Why an item has its score.

        Raises:
            ConfigError: As of `recommend`, or the model explains nothing.
            UnknownIdError: There is no such user or item.
            DataError: The moment is no time, or nothing can be had then.
            BusyError: Too many wait.
        """
        self._check_limits(body)
        asked = replace(make_asked(body, 1), item=body.item)
        return await self._ask(asked, self._get_reactions(body))

    async def converse(self, body: ConverseBody) -> Answered:
        """What the last line of a conversation leads to.

        Raises:
            ConfigError: The model holds no conversation, or a limit is passed.
            UnknownIdError: There is no such user or item.
            DataError: The moment is no time, or nothing can be had then.
            OutdatedListError: The lines before lead to another list than the client has.
            BusyError: Too many wait.
        """
        self._check_limits(body)
        said = self._get_reactions(body)
        left_out = frozenset(self.items.removed | said.events.keys())
        listed = None if body.listed is None else tuple(body.listed)
        asked = make_asked(body, body.k)
        if body.at is None:  # the client says it again, so that the conversation has one moment
            asked = replace(asked, at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M"))
        return await self._ask(
            replace(asked, lines=Lines(tuple(body.lines), listed, left_out)), said
        )

    def _get_reactions(self, body: Setting) -> Reactions:
        return self.feedback.get(body.user) if body.user is not None else Reactions()

    async def _ask(self, asked: Asked, said: Reactions) -> Answered:
        """What the model answers."""
        text = asked.query.text if asked.lines is None else " ".join(asked.lines.said)
        tokens = estimate_tokens(text)
        try:
            return await self.batcher.ask(asked, tokens)
        except UnknownIdError as error:
            if error.kind != "user" or not said.had:
                raise
            unknown = error
        # Someone whom the data does not know, and who has told the service what they like.
        had = said.had[-self.options.limits.max_history :]
        while had:
            try:
                return await self.batcher.ask(replace(asked, query=Query(history=had)), tokens)
            except UnknownIdError as error:
                if error.name not in had:
                    raise
                # Feedback may speak of items that this model does not have.
                had = tuple(each for each in had if each != error.name)
        raise unknown

    def _check_limits(self, body: Setting) -> None:
        limits = self.options.limits
        texts = body.lines if isinstance(body, ConverseBody) else []
        if len(texts) > limits.max_lines:
            raise ConfigError(
                f"the conversation has {len(texts)} lines; begin another one after "
                f"{limits.max_lines}."
            )
        if isinstance(body, Ask) and body.text is not None:
            texts = [body.text]
        for size in map(len, texts):
            if size > limits.max_text:
                raise ConfigError(
                    f"the text has {size} characters; give at most {limits.max_text}."
                )
        if body.history is not None and len(body.history) > limits.max_history:
            raise ConfigError(
                f"the history has {len(body.history)} items; give the latest {limits.max_history}."
            )
        if isinstance(body, RecommendBody | ConverseBody) and body.k > limits.max_k:
            raise ConfigError(f"k is {body.k}; ask for at most {limits.max_k}.")

    async def keep_feedback(self, body: FeedbackBody) -> int:
        """Keeps events; how many there were, once they are on the disk.

        Raises:
            ConfigError: There are too many.
            DataError: The disk is full or fails; none is kept.
        """
        if len(body.events) > self.options.limits.max_events:
            raise ConfigError(f"send at most {self.options.limits.max_events} events at once.")
        await self.feedback.add([(each.user, each.item, each.event) for each in body.events])
        self.metrics.events.inc(len(body.events))
        return len(body.events)

    async def forget(self, body: ForgetBody) -> int:
        """Takes the feedback of users out; how many events that was, once it is so on the disk.

        Raises:
            ConfigError: There are too many users.
            DataError: The disk is full or fails; nothing is forgotten.
        """
        if len(body.users) > self.options.limits.max_events:
            raise ConfigError(f"name at most {self.options.limits.max_events} users at once.")
        return await self.feedback.forget(frozenset(body.users))

    async def change_items(self, body: ItemsBody) -> list[str]:
        """Adds, removes and restores items; they count, and are on the disk, when it returns.

        Returns:
            Those of the ids to remove or restore that nothing is known of: the model in use has no
            such item, none was added, and none to restore was removed.

        Raises:
            ConfigError: There are too many, an item stands in two lists, or the model has no score
                for a new item.
            DataError: An item cannot be used, or the disk is full or fails; nothing is changed.
        """
        lists = [[each.item for each in body.add], body.remove, body.restore]
        every = [item for ids in lists for item in ids]
        limits = self.options.limits
        if len(every) > limits.max_events:
            raise ConfigError(f"change at most {limits.max_events} items at once.")
        seen: set[str] = set()
        for item in (item for ids in lists for item in dict.fromkeys(ids)):
            if item in seen:
                raise ConfigError(f"'{item}' stands in two lists; say one of the two.")
            seen.add(item)
        add: dict[str, ItemRow] = {
            each.item: {"text": each.text, **each.columns} for each in body.add
        }
        if len(add) < len(body.add):
            raise ConfigError("an item is to be added twice; give each once.")
        for size in (len(each.text or "") for each in body.add):
            if size > limits.max_text:
                raise ConfigError(f"a text has {size} characters; give at most {limits.max_text}.")
        # A sender that goes away does not leave an item that is on the disk and not in use.
        return await asyncio.shield(asyncio.ensure_future(self._change_items(add, body)))

    async def _change_items(self, add: dict[str, ItemRow], body: ItemsBody) -> list[str]:
        """Encodes what is new, keeps all changes, then answers by them."""
        async with self._changing:
            strangers = self.holder.list_unknown([*body.remove, *body.restore])
            gone = self.items.removed & set(body.restore)
            unknown = [i for i in strangers if i not in self.items.added and i not in gone]
            if not add:
                await self.items.change(add, body.remove, body.restore)
                return unknown
            every = merge_rows(self.items.added, add)
            most = self.options.limits.max_added
            if len(every) > most:
                raise ConfigError(
                    f"{len(every)} items would have been added while the service runs, more than "
                    f"max_added={most}; serve a newer bundle, or raise it."
                )
            loaded = await asyncio.to_thread(self.holder.add_items, every, add)
            await self.items.change(add, body.remove, body.restore)
            self.holder.use_items(loaded, every)
            return unknown

    async def reload(self) -> int:
        """Loads the model anew, and puts it in the old one's place.

        Returns:
            Its version.

        Raises:
            RecsysError: It cannot be loaded; the old one stays.
        """
        try:
            async with self._changing:
                loaded = await asyncio.to_thread(self.holder.reload)
        except RecsysError:
            self.metrics.reloads.labels("failed").inc()
            raise
        self.metrics.reloads.labels("done").inc()
        self.metrics.version.set(loaded.version)
        return loaded.version

    def start(self) -> None:
        """Begins to watch the folder, where that is asked for."""
        if self.options.watch:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        refused: object = None
        while True:
            await asyncio.sleep(self.options.watch)
            try:
                if await asyncio.to_thread(self.holder.has_changed):
                    await self.reload()
                    print(escape_line(f"serving {self.holder.current.folder} now"), flush=True)
                refused = None
            except Exception as error:
                # The files may still be on their way; each reason is said once.
                if str(error) != refused:
                    line = escape_line(f"note: the model stays as it is: {error}")
                    print(line, file=sys.stderr, flush=True)
                refused = str(error)

    async def close(self) -> None:
        """Answers what waits, finishes what is being written, and lets go of the state."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        await self.batcher.close()
        await self.feedback.close()
        async with self._changing:
            await self.items.close()
        self._held.close()


def make_asked(body: Setting, k: int, choice: Choice = ANY) -> Asked:
    """What a request asks a model.

    Args:
        body: The request.
        k: How many items.
        choice: Which items may be recommended, and what is said of them.

    Raises:
        DataError: The moment is no time.
    """
    from recsys.trained.lookup import parse_moment

    if body.at is not None:
        parse_moment(body.at)
    history = None if body.history is None else tuple(body.history)
    query = Query(body.user, history, body.text if isinstance(body, Ask) else None)
    context = tuple(sorted(body.context.items()))
    return Asked(query, k, body.at or "now", context, choice=choice)


def estimate_tokens(text: str | None) -> int:
    """About how many tokens a query has: a quarter of its characters, as in English."""
    return 1 if text is None else 2 + len(text) // 4
