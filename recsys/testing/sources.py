"""What every source keeps: tables with the user's own ids, the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from recsys.config.compose import compose_data
from recsys.data import prepare
from recsys.data.__main__ import main as describe
from recsys.fit.__main__ import main as fit
from recsys.runtime.files import RESULT
from recsys.testing.contract import Contract


class SourceContract(Contract):
    """Inherit it, name the `choice`, and write its files in `write`."""

    def write(self, folder: Path) -> Sequence[str]:
        """Writes the files that the source reads, a few users with four events each or more.

        Args:
            folder: An empty folder.

        Returns:
            Words that tell the source where they are, such as `path=FOLDER`.
        """
        raise NotImplementedError("write the files of the source into the folder")

    @pytest.fixture
    def source(self, tmp_path: Path) -> list[str]:
        """Words of the source on its files."""
        folder = tmp_path / "files"
        folder.mkdir()
        own = [f"data.source.{word}" for word in (*self.write(folder), *self.settings)]
        return [f"data.source={self.choice}", *own]

    def test_tables_have_ids_texts_and_known_items(self, source: list[str]) -> None:
        """Ids are texts, each item once and with a text; events name users and items of these."""
        tables = prepare.load_tables(compose_data(source).data)
        events, items, users = tables.interactions, tables.items, tables.users
        assert events.height
        assert items["item"].dtype == users["user"].dtype == pl.String
        assert items["item"].is_unique().all()
        assert users["user"].is_unique().all()
        assert items["text"].str.len_chars().gt(0).any()
        assert set(events["item"].to_list()) <= set(items["item"].to_list())
        assert set(events["user"].to_list()) <= set(users["user"].to_list())

    def test_it_reads_the_same_twice(self, source: list[str]) -> None:
        """The fingerprint of the data, by which runs are compared, must not change by itself."""
        one, two = (prepare.load_tables(compose_data(source).data) for _ in range(2))
        assert one.interactions.equals(two.interactions)
        assert one.items.equals(two.items)
        assert one.users.equals(two.users)

    def test_the_commands_take_it(
        self, source: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`data` describes it, and `fit` ranks its test cases by popularity."""
        assert describe([word.replace("data.source=", "source=") for word in source]) == 0
        assert "users" in capsys.readouterr().out
        words = [*source, "architecture=popularity", f"output={tmp_path / 'runs'}"]
        events = prepare.load_tables(compose_data(source).data).interactions
        if "rating" in events.columns and (events["rating"] == 0).any():
            words.append("data.positive_from=1")  # what was shown and not clicked is not liked
        assert fit(words) == 0
        assert len(list((tmp_path / "runs").glob(f"*/{RESULT}"))) == 1
