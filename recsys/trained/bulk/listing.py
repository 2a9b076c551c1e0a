"""What answers, explains and writes the lists of many users: a finished run, or a bundle."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.trained.explanations.explaining import Explaining

if TYPE_CHECKING:
    from recsys.data.tables import Tables
    from recsys.trained.bulk.models import BulkModel
    from recsys.trained.bulk.queries import Unknown
    from recsys.trained.bulk.write import ListRequest, WrittenLists
    from recsys.trained.queries import Choice, Query, Retriever


class Listing(Explaining):
    """Base of what writes lists of many users."""

    @abc.abstractmethod
    def open_bulk(
        self, check: Callable[[Tables], None], context: Mapping[str, str], choice: Choice
    ) -> BulkModel:
        """What ranks for many queries.

        Args:
            check: Sees the tables before anything is encoded, and may refuse them.
            context: What all queries are asked in.
            choice: Which items may be recommended.
        """

    @abc.abstractmethod
    def describe_sample(self, query: Query) -> str:
        """A sentence on the part of the data that is kept, for an unknown id; empty for all."""

    def write_lists(
        self,
        output: str | Path,
        *,
        users: str | Path | None = None,
        k: int = 10,
        at: str = "now",
        context: Mapping[str, object] | None = None,
        where: str | None = None,
        exclude_seen: bool = True,
        columns: Iterable[str] = (),
        diversity: float = 0.0,
        retriever: Retriever | None = None,
        candidates: int | None = None,
        unknown: Unknown = "error",
        shard: str | None = None,
    ) -> Path:
        """Writes the lists of many users into a file: `python -m recsys.recommend users=`.

        Memory does not grow with the number of users. Parts stand in a folder beside the file until
        it is whole; the same call goes on with them after a stop, and gives the same bytes.

        Args:
            output: The file, .parquet, .csv or .jsonl, with the columns of `recommend`.
            users: A file of users, .csv, .tsv, .jsonl or .parquet. Its column `user` holds ids of
                users of the data; where it has a column `history`, ids of items, oldest first
                (with commas between them, or a list), they are other people, whom `user` names.
                None or "all": all users of the data (a file of that name is `Path("all")`). Who is
                named twice has one list, for the first row.
            k: As in `recommend`, as is all that follows.
            at: A moment.
            context: What all are asked in.
            where: Which items.
            exclude_seen: Whether what someone had is left out.
            columns: Further columns of the items to give.
            diversity: How unlike each other they are to be.
            retriever: What proposes the items to choose from.
            candidates: How many are proposed.
            unknown: `error`: an unknown id of the file raises an error before anything is computed;
                `skip`: such a row, or such an item of a history, is left out.
            shard: As in 3/16: the third of sixteen parts of the users, which is written into
                a file of its own, `NAME-03-of-16.parquet`.

        Returns:
            The file.

        Raises:
            ConfigError: A word does not fit, or the data has changed since.
            DataError: A file cannot be read or written, an id is unknown, or there are parts of
                other lists beside the file.
        """
        from recsys.trained.bulk.output import Shard
        from recsys.trained.bulk.write import ListRequest, parse_users
        from recsys.trained.queries import make_choice

        request = ListRequest(
            Path(output),
            parse_users(users),
            k,
            at,
            {key: str(value) for key, value in (context or {}).items()},
            make_choice(where, exclude_seen, columns, diversity, retriever, candidates),
            unknown,
            None if shard is None else Shard.parse(shard),
        )
        return self.answer_request(request).path

    def answer_request(self, request: ListRequest) -> WrittenLists:
        """As `write_lists`."""
        from recsys.trained.bulk.write import write_lists

        return write_lists(
            request,
            self.describe_sample,
            lambda check: self.open_bulk(check, request.context, request.choice),
        )
