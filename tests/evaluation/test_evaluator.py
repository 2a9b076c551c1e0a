"""What a row says of a case does not depend on who ranks it; scores keep their precision."""

import pytest
import torch

from recsys.data.batches.examples import NOTHING
from recsys.errors import DivergenceError
from recsys.evaluation.evaluator import Evaluator
from recsys.types import Batch, ItemBatch


class Given:
    """A ranker with scores made up for each query and item."""

    def __init__(self, scores, needs_history=False):
        self.scores, self.needs_history = scores, needs_history

    def get_popularity(self):
        return torch.tensor([5.0, 0, 1, 2])

    def index_catalog(self):
        return torch.arange(self.scores.shape[1])

    def select_directions(self, items):
        return items

    def queries(self, batch, items):
        return torch.arange(len(batch.query))

    def score(self, queries, items):
        return self.scores[queries][:, items]

    def score_candidates(self, batch, items):
        return self.scores.gather(1, items[batch.candidates.clamp(min=0)])


def batch(candidates, labels, seen=(), history=1):
    q = len(candidates)
    return Batch(
        plan=ItemBatch(torch.arange(4), (1, 1, 1, 1)),
        users=torch.arange(q),
        history=torch.zeros(q, 1, dtype=torch.long),
        query=torch.tensor([[i, history] for i in range(q)]),
        candidates=torch.tensor(candidates),
        labels=torch.tensor(labels),
        weight=torch.tensor(labels),
        case=torch.arange(q),
        seen=torch.tensor(seen) if seen else torch.from_numpy(NOTHING),
    )


COUNTS = torch.tensor([3, 0, 0, 2])


def ranked(ranking, scores, work, needs_history=False):
    evaluator = Evaluator(ranking, (1, 2), True, COUNTS)
    ranker = Given(torch.tensor(scores), needs_history)
    evaluator.start(ranker)
    evaluator.step(ranker, work)
    return evaluator.end(), evaluator.rows[0]


def test_rows_of_a_list_do_not_depend_on_the_scores():
    work = batch([[0, 1, 3], [1, 2, -1]], [[1.0, 1, 0], [1.0, 0, 0]])
    _, one = ranked("labels", [[9.0, 1, 0, 5], [1.0, 2, 3, 4]], work)
    _, two = ranked("labels", [[1.0, 9, 0, 5], [1.0, 2, 3, 4]], work)
    for name in ("target", "cold", "size", "positives"):
        assert one[name].tolist() == two[name].tolist()
    assert one["target"].tolist() == [0, 1]
    assert one["cold"].tolist() == [False, True]
    assert one["rank"].tolist() == [1, 2]
    assert two["rank"].tolist() == [3, 2]


def test_a_list_without_a_positive_has_no_row_and_no_metric():
    work = batch([[0, 1], [2, 3]], [[0.0, 0], [0.0, 1]])
    metrics, row = ranked("labels", [[1.0, 2, 3, 4], [1.0, 2, 3, 4]], work)
    assert row["case"].tolist() == [1]
    assert metrics["hr@1"] == 1.0


def test_a_masked_target_is_unreachable_and_what_was_seen_is_out_of_the_way():
    work = batch([[0], [0]], [[1.0], [1.0]], seen=[[0, 0], [1, 3], [1, 2]])
    metrics, row = ranked("catalog", [[9.0, 1, 2, 3], [4.0, 1, 8, 9]], work)
    assert row["unreachable"].tolist() == [True, False]
    assert row["rank"].tolist() == [5, 1]
    assert row["size"].tolist() == [4, 2]
    assert metrics["hr@1"] == 0.5


def test_blocks_of_cases_give_what_one_block_gives(monkeypatch):
    import recsys.evaluation.ranking as room

    torch.manual_seed(0)
    scores = torch.randint(0, 3, (9, 4)).tolist()
    work = batch(
        [[i % 4] for i in range(9)], [[1.0]] * 9, seen=[[i, (i + 1) % 4] for i in range(9)]
    )
    whole = ranked("catalog", [[float(x) for x in row] for row in scores], work)
    monkeypatch.setattr(room, "BLOCK", 8)
    parts = ranked("catalog", [[float(x) for x in row] for row in scores], work)
    assert whole[0] == pytest.approx(parts[0], nan_ok=True)
    assert {k: v.tolist() for k, v in whole[1].items()} == {
        k: v.tolist() for k, v in parts[1].items()
    }


def test_popularity_answers_where_only_the_history_counts():
    work = batch([[3]], [[1.0]], history=0)
    assert ranked("catalog", [[0.0, 0, 0, 9]], work)[1]["rank"].tolist() == [1]
    assert ranked("catalog", [[0.0, 0, 0, 9]], work, True)[1]["rank"].tolist() == [2]


def test_a_collapse_stops_a_training_but_not_what_came_before_it():
    evaluator = Evaluator("catalog", (1,), True, COUNTS)

    class Same(Given):
        def index_catalog(self):
            return torch.ones(4, 8)

    same = Same(torch.zeros(1, 4))
    for _ in range(3):
        with pytest.warns(UserWarning, match="nearly the same vector"):
            evaluator.start(same)
    with pytest.warns(UserWarning, match="nearly the same vector"):
        evaluator.start(same, may_stop=True)
    with pytest.raises(DivergenceError, match="twice in a row"):
        evaluator.start(same, may_stop=True)
