"""Tables and split that several runs share."""

import dataclasses

import numpy as np
import pytest

from recsys.config.compose import compose
from recsys.data.prepare import LEARNING, PreparedData, prepare_data
from recsys.data.tables import compute_fingerprint

OTHERS = {
    "queries": "all",
    "queries_per_user": "3",
    "targets": "labelled",
    "negatives": "impression",
    "hard_from": "elsewhere",
    "hard_top": "7",
    "hard_skip": "2",
    "hard_share": "0.1",
    "max_history": "3",
    "max_tokens": "2",
    "train_users": "5",
    "augment.crop": "0.5",
    "query_column": "none",
}


def test_options_of_learning_change_neither_tables_nor_split(shop_words):
    assert {name.partition(".")[0] for name in OTHERS} == set(LEARNING)
    own = compose(shop_words).data
    other = compose([*shop_words, *(f"data.{k}={v}" for k, v in OTHERS.items())]).data
    assert PreparedData.prepare(own).fits(other)
    (tables, split), (tables2, split2) = prepare_data(own), prepare_data(other)
    assert compute_fingerprint(tables) == compute_fingerprint(tables2)
    for field in dataclasses.fields(split):
        left, right = getattr(split, field.name), getattr(split2, field.name)
        assert np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right


@pytest.mark.parametrize(
    "word",
    ["data.positive_from=3", "data.max_users=20", "data.split=random", "data.source.item_text=x"],
)
def test_any_other_option_is_other_data(shop_words, word):
    own, other = compose(shop_words).data, compose([*shop_words, word]).data
    assert not PreparedData.prepare(own).fits(other)
