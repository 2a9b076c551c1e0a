"""Pairs are laid out by arithmetic as they are by hand, and each text is prepared once."""

import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.encoders.pairs import PairLayout, compute_span_means
from recsys.encoders.special_tokens import SpecialTokens
from recsys.types import Ragged

BERT = SpecialTokens((2,), (3,), (3,), 0)
ROBERTA = SpecialTokens((5,), (6, 6), (6,), 1)
PLAIN = SpecialTokens((), (), (), 9)


def ragged(sizes, first):
    return Ragged(torch.arange(first, first + sum(sizes)), tuple(sizes))


def by_hand(a, b, specials, longest):
    """Ids and kinds of one pair, by lists."""
    room = longest - len(specials.prefix) - len(specials.separators) - len(specials.suffix)
    b = b.tolist()[:room]
    a = a.tolist()[: room - len(b)]
    pieces = [
        (specials.prefix, 2), (a, 0), (specials.separators, 2), (b, 1), (specials.suffix, 2),
    ]  # fmt: skip
    ids = [i for piece, _ in pieces for i in piece]
    return ids, [k for piece, k in pieces for _ in piece]


@pytest.mark.parametrize("specials", [BERT, ROBERTA, PLAIN])
@pytest.mark.parametrize("longest", [5, 9, 40])
def test_the_layout_is_that_by_hand(specials, longest):
    first, second = ragged([7, 0, 3, 12], 100), ragged([2, 0, 30, 4, 1], 200)
    left, right = (
        x.flatten() for x in torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    )
    pairing = PairLayout(first, second, left, right, specials, longest)
    want = [
        by_hand(first.split()[a], second.split()[b], specials, longest)
        for a, b in zip(left, right, strict=True)
    ]
    assert pairing.lengths == [len(ids) for ids, _ in want]
    rows = tuple(r for r in (3, 19, 0, 7, 12, 6, 11) if want[r][0])
    index, kind = pairing.compute_places(rows)
    width = max(len(want[r][0]) for r in rows)
    ids = pairing.table[index].tolist()
    for place, row in enumerate(rows):
        missing = width - len(want[row][0])
        assert ids[place] == want[row][0] + [specials.pad] * missing
        assert kind[place].tolist() == want[row][1] + [-1] * missing


def test_means_are_over_their_own_tokens():
    states = torch.randn(2, 6, 3)
    kind = torch.tensor([[2, 0, 0, 2, 1, 2], [2, 2, 1, 2, -1, -1]])
    first, second, whole = compute_span_means(states, kind)
    assert torch.allclose(first[0], states[0, 1:3].mean(0))
    assert not first[1].any()
    assert torch.allclose(second, torch.stack([states[0, 4], states[1, 2]]))
    assert torch.allclose(whole[1], states[1, :4].mean(0), atol=1e-6)


@pytest.fixture
def made(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = ["architecture=cross_encoder", "objective=sampled_softmax"]
    words += ["evaluation.protocol=candidates", "evaluation.candidates=9"]
    return build.assemble(compose([*shop_words, *words]))


def test_a_step_is_one_call_that_holds_each_text_once(made, monkeypatch):
    """All pairs are planned by length together, whoever they belong to."""
    model = made.recommender.eval()
    batch = next(iter(made.datamodule.test_dataloader()))
    calls, inner = [], model.encoder.encode_pairs

    def noted(*arguments):
        calls.append(arguments)
        return inner(*arguments)

    monkeypatch.setattr(model.encoder, "encode_pairs", noted)
    with torch.no_grad():
        model.score_candidates(batch, model.index(batch.plan))
    ((users, items, left, right),) = calls
    assert len(users) == len(batch.query) == 40
    assert len(left) == len(right) == 40 * 9
    assert len(items) == len(batch.plan.items[batch.candidates.unique()])


def test_company_does_not_change_a_pair(made):
    """The pair alone in its call is as it is among all."""
    encoder = made.recommender.eval().encoder
    first, second = ragged([5, 0, 3], 4), ragged([2, 4], 4)
    left, right = torch.tensor([0, 2, 1, 0]), torch.tensor([1, 1, 0, 0])
    with torch.no_grad():
        together = encoder.encode_pairs(first, second, left, right)
        for at in range(4):
            alone = encoder.encode_pairs(first, second, left[at : at + 1], right[at : at + 1])
            for a, b in zip(alone, together, strict=True):
                assert torch.allclose(a[0], b[at], atol=1e-5)
        assert not together[0][2].any()
        none = encoder.encode_pairs(first, second, left[:0], right[:0])
    assert [x.shape for x in none] == [(0, 32)] * 3
