"""What tokens add sums to the score, in every family, and is exact where the score is linear."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recsys.encoders.encoder import Encoder
from recsys.encoders.passages import Piece, TextSpans, make_pair_score, make_text_score
from recsys.errors import ConfigError
from recsys.trained.explanations.words.gradients import POINTS, integrate_tokens
from recsys.tuning import adapter, lora
from recsys.types import TokenScore
from tests.encoders.families import FAMILIES, OTHERS, SPECIALS, texts, tiny

SPANS = TextSpans(lambda texts: [[(n, n + 1) for n in range(len(t))] for t in texts], "", "")
POOLINGS = ("cls", "last", "max", "mean_sqrt_len", "weightedmean", "attention")


def read_text(encoder, size=9):
    tokens = texts(size)
    with torch.no_grad():
        other = F.normalize(encoder(texts(4, 5))[1], dim=-1)

    def compare(vectors):
        return 20 * F.normalize(vectors, dim=-1) @ other

    owner = torch.zeros(size, dtype=torch.long)
    return make_text_score(encoder, SPANS, [Piece("item", "x" * size)], tokens, owner, compare)


def read_pair(encoder):
    both = texts(6), texts(5)
    owners = torch.zeros(6, dtype=torch.long), torch.zeros(5, dtype=torch.long)

    def compare(first, second, whole):
        return 20 * F.cosine_similarity(first, second, dim=-1) + whole[:, 0]

    pieces = [Piece("title", "x" * 6)], [Piece("item", "y" * 5)]
    return make_pair_score(encoder, SPANS, pieces, both, owners, compare)


def check(score, changes=True):
    """The parts, which sum to the score less that of padding between the special tokens."""
    parts = integrate_tokens(score)
    change = parts.score - parts.baseline
    assert abs(float(parts.values.sum()) - change) <= 0.01 * abs(change)
    assert parts.error == pytest.approx(
        abs(float(parts.values.sum()) - change) / abs(change), abs=1e-9
    )
    assert abs(change) > 1e-4
    assert (parts.values[score.owner < 0] == 0).all()
    assert not changes or (parts.values[score.owner >= 0] != 0).all()
    assert parts.points in POINTS
    return parts


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("read", [read_text, read_pair])
def test_tokens_sum_to_what_they_change_in_every_family(family, read):
    encoder = tiny(family).eval()
    score = read(encoder)
    check(score)
    # the baseline keeps special tokens: those, and padding in place of all others
    assert score.ids[score.owner < 0].tolist() == [1, 2] if read is read_text else [1, 2, 2]


@pytest.mark.parametrize("family", OTHERS)
def test_tokens_sum_to_what_they_change_in_families_of_other_layers(family):
    torch.manual_seed(0)
    score = read_text(Encoder(OTHERS[family](), SPECIALS, "mean", 20).eval())
    if family == "xlnet":
        with pytest.raises(ConfigError, match="in the order of the text"):
            integrate_tokens(score)
        return
    check(score)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_tokens_sum_to_what_they_change_with_every_pooling(pooling):
    check(read_text(tiny("bert", pooling).eval()))


@pytest.mark.parametrize("tune", [lora, adapter])
def test_tokens_of_a_tuned_encoder_add_the_same_before_and_after_it_is_merged(tune):
    encoder = tiny("bert")
    tuned = tune.apply(encoder, tune.Config())
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name in tuned.added:
                parameter.add_(0.1 * torch.randn_like(parameter))
    encoder.eval()
    before = check(read_text(encoder))
    assert all(parameter.grad is None for parameter in encoder.parameters())
    if tuned.merge is not None:
        tuned.merge()
        after = check(read_text(encoder))
        assert torch.allclose(before.values, after.values, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
def test_padding_at_the_right_adds_nothing_and_changes_no_token(family):
    score = read_text(tiny(family, "last").eval())
    more = torch.zeros(4, dtype=torch.long)
    padded = replace(
        score,
        ids=torch.cat([score.ids, more]),
        kinds=torch.cat([score.kinds, more - 1]),
        owner=torch.cat([score.owner, more - 1]),
    )
    own, other = integrate_tokens(score), integrate_tokens(padded)
    assert own.score == pytest.approx(other.score, abs=1e-5)
    assert own.baseline == pytest.approx(other.baseline, abs=1e-5)
    assert torch.allclose(own.values, other.values[: len(own.values)], atol=1e-4)
    assert (other.values[len(own.values) :] == 0).all()


class Bag(nn.Module):
    """A model whose token states are its embeddings."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.config = SimpleNamespace(hidden_size=8)

    def forward(self, ids):
        return self.table(ids)


def test_tokens_of_a_bag_that_is_scored_linearly_add_their_products():
    torch.manual_seed(0)
    bag, asked = Bag(), torch.randn(8)
    ids = torch.tensor([1, 7, 9, 7, 30, 2])
    kinds = torch.tensor([2, 0, 0, 0, 0, 2])
    prior = 0.75

    def score(ids, kinds):
        return bag(ids).mean(1) @ asked + prior

    def bare(ids, kinds):
        return bag(ids).mean(1) @ asked

    given = TokenScore(
        (), ids, kinds, torch.where(kinds == 0, 0, -1), 0, bag.table, score, {"prior": bare}
    )
    parts = integrate_tokens(given)
    with torch.no_grad():
        each = (bag.table(ids) - bag.table.weight[0]) @ asked / len(ids)
        empty = bag.table(torch.tensor([[1, 0, 0, 0, 0, 2]])).mean(1) @ asked
    want = torch.where(kinds == 0, each, 0.0).double()
    assert torch.allclose(parts.values, want, atol=1e-6)
    assert parts.rest == {"prior": pytest.approx(prior, abs=1e-6)}
    assert parts.baseline == pytest.approx(float(empty), abs=1e-6)
    assert parts.points == POINTS[0]
    total = parts.baseline + parts.rest["prior"] + float(parts.values.sum())
    assert total == pytest.approx(parts.score, abs=1e-5)


def test_a_path_that_no_points_suffice_for_says_by_how_much_it_misses():
    table = nn.Embedding(4, 1)
    with torch.no_grad():
        table.weight.copy_(torch.tensor([[0.0], [0.0], [1.0], [0.0]]))

    def score(ids, kinds):  # a step that no point of the path sees
        x = table(ids)[:, 0, 0]
        return torch.where(x >= 1, 1.0, 0.0) + 0 * x

    one = torch.zeros(1, dtype=torch.long)
    parts = integrate_tokens(TokenScore((), one + 2, one, one, 0, table, score))
    assert (parts.score, parts.baseline, parts.points) == (1.0, 0.0, POINTS[-1])
    assert parts.error == pytest.approx(1.0)
