from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.data.batches.catalog import Catalog, hash_texts
from recsys.errors import DataError
from recsys.runtime.store import Store

TEXTS = ["red shoes", "", "a long text with many words in it", "red", "shoes red shoes"]


def _tokenize(texts: list[str]) -> list[list[int]]:
    return [[sum(map(ord, word)) for word in text.split()] for text in texts]


def _build(root: Path, texts: list[str] = TEXTS, key: str = "t", most: int = 5) -> Catalog:
    return Catalog.from_texts(texts, _tokenize, key, Store(root), most)


def test_mapped_tokens_equal_fresh_tokenising(tmp_path: Path) -> None:
    catalog = _build(tmp_path)
    assert len(catalog) == len(TEXTS)
    for rows in ([0, 1, 2, 3, 4], [4, 1, 2, 2, 0], [1], []):
        fresh = [ids[:5] for ids in _tokenize([TEXTS[r] for r in rows])]
        index = torch.tensor(rows, dtype=torch.int64)
        got = catalog.gather_tokens(index)
        assert [part.tolist() for part in got.split()] == fresh if rows else not len(got)
        assert got.values.dtype == torch.int64
        assert catalog.count_tokens(index) == got.sizes == tuple(len(ids) for ids in fresh)


def test_chunks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.data.batches.catalog.CHUNK", 2)
    catalog = _build(tmp_path, most=99)
    got = catalog.gather_tokens(torch.arange(len(TEXTS)))
    assert [part.tolist() for part in got.split()] == _tokenize(TEXTS)


def test_files_are_mapped_and_pickling_sends_only_the_folder(tmp_path: Path) -> None:
    words = [f"w{n} " * 50 for n in range(2000)]
    catalog = _build(tmp_path, words, most=50)
    assert isinstance(catalog._ids, np.memmap)
    assert catalog._ids.dtype == np.int32
    assert catalog._offsets.dtype == np.int64
    sent = pickle.dumps(catalog)
    assert len(sent) < 2000
    rows = torch.tensor([7, 1999])
    assert torch.equal(
        pickle.loads(sent).gather_tokens(rows).values, catalog.gather_tokens(rows).values
    )


def test_key_covers_texts_tokenizer_and_length(tmp_path: Path) -> None:
    def refuse(texts: list[str]) -> list[list[int]]:
        raise AssertionError("tokenised again")

    folder = _build(tmp_path).folder
    assert Catalog.from_texts(TEXTS, refuse, "t", Store(tmp_path), 5).folder == folder
    others = [
        _build(tmp_path, TEXTS[::-1]),
        _build(tmp_path, key="u"),
        _build(tmp_path, most=4),
    ]
    assert len({folder, *(c.folder for c in others)}) == 4
    assert hash_texts(["ab", "c"]) != hash_texts(["a", "bc"])


def test_only_empty_texts(tmp_path: Path) -> None:
    catalog = _build(tmp_path, ["", ""])
    assert catalog.gather_tokens(torch.tensor([1, 0])).sizes == (0, 0)


@pytest.mark.parametrize("row", [-1, 5])
def test_row_outside_the_catalog(tmp_path: Path, row: int) -> None:
    with pytest.raises(DataError, match=f"row {row} "):
        _build(tmp_path).gather_tokens(torch.tensor([0, row]))


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no item texts"):
        _build(tmp_path, [])
    with pytest.raises(DataError, match="max_tokens is 0"):
        _build(tmp_path, most=0)
    with pytest.raises(DataError, match="1 lists for 5 texts"):
        Catalog.from_texts(TEXTS, lambda texts: [[1]], "x", Store(tmp_path), 5)
    with pytest.raises(DataError, match="outside 0"):
        Catalog.from_texts(TEXTS, lambda texts: [[2**31] for _ in texts], "y", Store(tmp_path), 5)
    assert not list((tmp_path / "catalog").iterdir())
