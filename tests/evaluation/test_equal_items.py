"""A hit may be any item of the target's value: where the best of them stands."""

import json
import math

import polars as pl
import pytest
import torch

from recsys.assembly.protocols import make_equal_items
from recsys.config.compose import compose
from recsys.data.tables import Tables
from recsys.errors import ConfigError
from recsys.evaluation.equal_items import EqualItems
from recsys.fit.__main__ import main
from recsys.metrics.functional import count_ranks
from tests.architectures.test_baselines import assembled
from tests.evaluation.test_evaluator import COUNTS, Evaluator, Given, batch


def rank_naively(scores, codes, target, hidden):
    """Higher, equal and all, with the best unmasked item of the target's code for the target."""
    hits = [i for i in range(len(codes)) if codes[i] == codes[target] and i not in hidden]
    best = max((scores[i] for i in hits), default=None)
    others = [i for i in range(len(codes)) if codes[i] != codes[target] and i not in hidden]
    if best is None:
        return None
    higher = sum(scores[i] > best for i in others)
    return higher, sum(scores[i] == best for i in others), len(others) + 1


@pytest.mark.parametrize("dense", [False, True])
def test_the_best_of_them_is_ranked_as_a_loop_says(dense):
    random = torch.Generator().manual_seed(0)
    codes = torch.tensor([0, 1, 2, 1, 3, 1, 0, 4])
    scores = torch.randint(0, 6, (200, 8), generator=random).float()
    targets = torch.randint(0, 8, (200,), generator=random)
    mask = torch.rand(200, 8, generator=random) < 0.25
    given = mask if dense else mask.nonzero()
    best, masked = EqualItems(codes).take_best(scores, targets, given)
    greater, equal, size = count_ranks(scores, best, masked)
    reached = 0
    for case in range(200):
        hidden = set(mask[case].nonzero()[:, 0].tolist())
        want = rank_naively(scores[case].tolist(), codes.tolist(), int(targets[case]), hidden)
        if want is None:
            assert best[case] == targets[case]
            assert int(best[case]) in hidden
            continue
        reached += 1
        assert (int(greater[case]), int(equal[case]), int(size[case])) == want
        assert codes[best[case]] == codes[targets[case]]
    assert 100 < reached < 200


def test_a_case_whose_target_was_had_is_hit_by_its_twin():
    """Items 1 and 3 are twins; the second case has had its target, the third one both."""
    work = batch([[1], [1], [1]], [[1.0], [1.0], [1.0]], [[1, 1], [2, 1], [2, 3]])
    scores = torch.tensor([[9.0, 1, 2, 8], [0.0, 9, 3, 5], [4.0, 9, 3, 8]])
    rows = {}
    for name, equal in (("plain", None), ("twins", EqualItems(torch.tensor([0, 1, 2, 1])))):
        evaluator = Evaluator("catalog", (1, 2), True, COUNTS, equal=equal)
        evaluator.start(Given(scores))
        evaluator.step(Given(scores), work)
        (rows[name],) = evaluator.rows
        metrics = evaluator.end()
    assert rows["plain"]["rank"].tolist() == [4, 5, 5]
    assert rows["twins"]["rank"].tolist() == [2, 1, 5]
    assert rows["twins"]["unreachable"].tolist() == [False, False, True]
    assert rows["twins"]["target"].tolist() == [1, 1, 1]
    assert metrics["hr@2"] == pytest.approx(2 / 3)
    assert metrics["ndcg@2"] == pytest.approx((1 / math.log2(3) + 1) / 3)


def test_an_item_without_a_value_is_alone():

    items = pl.DataFrame({"item": list("abcd"), "title": ["x", None, "x", None]})
    run = compose(["architecture=popularity", "evaluation.hit_by=title"])
    equal = make_equal_items(run, Tables(items, items, items))
    assert equal.list_others(torch.arange(4)).tolist() == [[0, 2], [2, 0]]


def test_the_metrics_of_a_run_say_so(shop_words, shop, tmp_path, capsys):
    """As plain ones where no name comes twice; and better where colours are names."""
    words = [*shop_words, "architecture=popularity", "evaluation.mask_history=false"]
    header, *lines = (shop / "items.csv").read_text().splitlines()
    items = [f"{line},{line.split(',')[1].split()[0]}" for line in lines]
    (tmp_path / "items.csv").write_text("\n".join([f"{header},colour", *items]) + "\n")
    words.append(f"data.source.items={tmp_path / 'items.csv'}")
    found = {}
    for column in (None, "name", "colour"):
        output = tmp_path / "runs" / str(column)
        hits = [] if column is None else [f"evaluation.hit_by={column}"]
        assert main([*words, *hits, f"output={output}"]) == 0
        (folder,) = output.glob("*")
        found[column] = json.loads((folder / "result.json").read_text())
    out = capsys.readouterr().out
    assert "each same-colour-METRIC; catalog: among all items; a hit is an item of the same" in out
    plain, same = found[None]["test"], found["name"]["test"]
    for name in ("ndcg@10", "hr@10", "mrr"):
        assert same[f"same-name-{name}"] == plain[name]
        assert name not in same
        assert found["colour"]["test"][f"same-colour-{name}"] > plain[name]
    assert found["colour"]["protocol"]["hit_by"] == "colour"
    assert found["colour"]["validation"]["monitor"] == "val/same-colour-ndcg@10"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluation.hit_by=nam"], "no column 'nam'. Did you mean 'name'"),
        (["evaluation.hit_by=name", "evaluation.protocol=candidates"], "protocol=catalog"),
        (["evaluation.hit_by='a/b'"], "rename the column"),
    ],
)
def test_what_makes_no_sense_is_refused(shop_words, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        assembled(shop_words, "architecture=popularity", *words)
