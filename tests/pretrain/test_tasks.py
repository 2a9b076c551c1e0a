"""What tasks draw: pairs within a window, hidden tokens, words left out."""

import numpy as np
import pytest
import torch

from recsys.config.compose import compose_pretraining
from recsys.pretrain.assemble import assemble
from recsys.pretrain.tasks import base
from recsys.pretrain.tasks.co_occurrence import find_partners, list_offsets
from recsys.pretrain.tasks.decoder import VectorDecoder
from recsys.pretrain.tasks.tsdae import keep_words
from recsys.recommender.flops import FlopCounter
from recsys.testing.shop import write_encoder


@pytest.fixture
def made(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "masked").mkdir()
    encoder = write_encoder(tmp_path / "masked", ("[MASK]",))
    own = [word for word in shop_words if not word.startswith("encoder.model=")]
    return lambda *words: assemble(
        compose_pretraining([*own, f"encoder.model={encoder}", "trainer.precision=fp32", *words])
    )


def test_partners_are_the_same_users_other_titles_within_the_window():
    users = np.array([0, 0, 0, 0, 1, 1, 2])
    texts = np.array([5, 6, 5, 7, 5, 8, -1])
    near = find_partners(users, texts, 2)
    want = {
        (i, j)
        for i in range(7)
        for j in range(7)
        if 0 < abs(i - j) <= 2 and users[i] == users[j] and texts[i] != texts[j]
    }
    rows, columns = np.nonzero(near)
    assert set(zip(rows, rows + list_offsets(2)[columns], strict=True)) == want
    assert not find_partners(users, texts, 50)[6].any()


def test_pairs_are_of_training_within_the_window_and_all_are_drawn(made):
    task = made("pretraining.window=1").data.task
    seen, events = set(), task.anchors
    for epoch in range(20):
        parts = task.make_batch(events, 0, epoch).parts
        seen |= set(map(tuple, parts["items"].T.tolist()))
    items, users = task.items, task.users
    beside = [(i, i + 1) for i in range(len(items) - 1) if users[i] == users[i + 1]]
    want = {tuple(items[list(pair)]) for i, j in beside for pair in ((i, j), (j, i))}
    assert seen == {(a, b) for a, b in want if a != b}
    assert len(task.items) == 3 * 40  # two of the five events of each user are held out


def test_what_is_drawn_depends_on_the_example_alone(made):
    for name in ("co_occurrence", "mlm", "tsdae"):
        task = made(f"pretraining={name}").data.task
        at = task.split_examples(0.1, 0)[0][:6]
        whole = task.make_batch(at, 3, 1)
        alone = task.make_batch(at[2:3], 3, 1)
        again = task.make_batch(at, 3, 2)
        assert not torch.equal(whole.tokens.values, again.tokens.values) or any(
            not torch.equal(v, again.parts[k]) for k, v in whole.parts.items()
        )
        if name == "co_occurrence":
            assert torch.equal(whole.parts["items"][:, 2:3], alone.parts["items"])
        else:
            assert torch.equal(whole.tokens.split()[2], alone.tokens.values)


def test_the_same_title_and_what_the_user_had_are_no_negatives(made, monkeypatch):
    task = made("pretraining.window=2").data.task
    kept = []

    def contrast(left, right, keep, temperature, bias=None):
        kept.append(keep)
        return inner(left, right, keep, temperature, bias)

    inner = base.compute_contrast
    monkeypatch.setattr(base, "compute_contrast", contrast)
    at = task.anchors[:12]
    batch = task.make_batch(at, 0, 0)
    encoder = made("pretraining.window=2").model.encoder
    task.compute_loss(encoder, batch, FlopCounter())
    had = {user: set(task.items[task.users == user].tolist()) for user in task.users}
    for one, other, keep in ((0, 1, kept[0]), (1, 0, kept[1])):
        items = batch.parts["items"].numpy()
        for i in range(len(at)):
            for j in range(len(at)):
                same = items[other][j] in (items[one][i], items[other][i])
                free = i == j or not (same or items[other][j] in had[task.users[at[i]]])
                assert bool(keep[i, j]) is free


def test_the_loss_is_the_softmax_of_cosines():
    torch.manual_seed(0)
    left, right = torch.randn(4, 3), torch.randn(4, 3)
    keep = torch.ones(4, 4, dtype=torch.bool)
    loss = base.compute_contrast(left, right, keep, 0.5)
    cosines = torch.nn.functional.cosine_similarity(left[:, None], right[None], dim=-1) / 0.5
    want = torch.nn.functional.cross_entropy(cosines, torch.arange(4), reduction="sum")
    torch.testing.assert_close(loss.total, want)
    assert int(loss.count) == 4


def test_hidden_tokens_are_told_by_what_they_were(made):
    whole = made("pretraining=mlm", "pretraining.share=0.3")
    task, encoder = whole.data.task, whole.model.encoder
    masked = replaced = left = 0
    for epoch in range(60):
        batch = task.make_batch(task.rows, 0, epoch)
        plain = task.catalog.gather_tokens(torch.from_numpy(task.rows)).split()
        hidden = batch.tokens.split()
        text, place = batch.parts["text"], batch.parts["place"]
        assert len(set(text.tolist())) == len(task.rows)  # each text has one at least
        for t, p, target in zip(text.tolist(), place.tolist(), batch.parts["targets"], strict=True):
            assert plain[t][p] == target
            now = hidden[t][p]
            masked += int(now == task.mask)
            replaced += int(now not in (task.mask, target))
            left += int(now == target)
        chosen = set(zip(text.tolist(), place.tolist(), strict=True))
        for t, (a, b) in enumerate(zip(plain, hidden, strict=True)):
            assert all(a[p] == b[p] for p in range(len(a)) if (t, p) not in chosen)
    total = masked + replaced + left
    assert abs(masked / total - 0.8) < 0.03
    assert 0.05 < replaced / total < 0.12  # the other one may be the same
    states = encoder.compute_states(batch.tokens)
    assert states.sizes[0] == len(hidden[0]) + 2


def test_words_go_whole_and_one_stays():
    words = np.array([0, 0, 1, 2, 3, 4])
    chance = np.array([0.1, 0.9, 0.7, 0.2, 0.3, 0.65])
    assert keep_words(words, chance, 0.6).tolist() == [False, False, True, False, False, True]
    assert keep_words(words, chance, 0.99).tolist() == [False, False, True, False, False, False]
    prompt = np.array([-1, -1, 0, 1])
    assert keep_words(prompt, np.array([0, 0, 0.5, 0.2]), 0.9).tolist() == [True, True, True, False]


def test_a_decoder_sees_what_came_before_and_the_vector():
    torch.manual_seed(0)
    table = torch.randn(11, 6)
    decoder = VectorDecoder(8, 5, 2, 2, 7, table).eval()
    ids, kept = torch.tensor([[1, 2, 3, 4]]), torch.ones(1, 4, dtype=torch.bool)
    vector = torch.randn(1, 5)
    scores = decoder(vector, ids, kept, table, FlopCounter())
    later = decoder(vector, torch.tensor([[1, 2, 9, 4]]), kept, table, FlopCounter())
    assert torch.allclose(scores[:2], later[:2], atol=1e-6)
    assert not torch.allclose(scores[2:], later[2:], atol=1e-3)
    other = decoder(torch.randn(1, 5), ids, kept, table, FlopCounter())
    assert not torch.allclose(scores, other, atol=1e-3)


def test_the_text_that_is_written_is_the_whole_one(made):
    task = made("pretraining=tsdae").data.task
    batch = task.make_batch(task.rows, 0, 0)
    plain = task.catalog.gather_tokens(torch.from_numpy(task.rows)).split()
    for row, ids in zip(batch.parts["targets"], plain, strict=True):
        kept = row[row >= 0].tolist()
        assert kept == [*ids.tolist(), task.last]
    shares = [len(a) / len(b) for a, b in zip(batch.tokens.split(), plain, strict=True)]
    assert min(shares) > 0
    assert np.mean(shares) < 0.8
