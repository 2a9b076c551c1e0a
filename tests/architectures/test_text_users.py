"""A user from a text: the titles of the history are read as tokens, and never encoded alone."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.examples import TEST, TRAIN, VAL
from recsys.testing.shop import COLOURS
from recsys.types import ItemBatch


@pytest.mark.parametrize("objective", ["in_batch", "sampled_softmax"])
@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_only_candidates_are_encoded_and_nothing_else_changes(shop_words, objective, towers):
    words = ["architecture.user=text", f"architecture.towers={towers}", f"objective={objective}"]
    words += ["tuning=full", "trainer.batch_size=2"]
    made = build.assemble(compose([*shop_words, *words]))
    model = made.recommender.eval()
    batch = next(iter(made.datamodule.train_dataloader()))
    asked = batch.plan.select_candidates()
    assert 0 < len(asked.items) < len(batch.plan.items)
    model.work.counting = True
    around = made.recommender.parts.around(model.score)
    found = []
    for first in (len(asked.items), None):
        # Without a number of candidates the whole plan is encoded.
        plan = ItemBatch(batch.plan.items, batch.plan.sizes, first=first)
        now = dataclasses.replace(batch, plan=plan)
        before = model.work.texts
        model.zero_grad()
        loss = model.parts.objective(model(now), now, around).total
        loss.backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((float(loss), grads, model.work.texts - before))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert (found[0][1] - found[1][1]).norm() < 1e-5 * found[1][1].norm()
    assert found[0][2] == len(asked.items) + len(batch.query)
    assert found[1][2] == len(batch.plan.items) + len(batch.query)


@pytest.fixture
def told(shop_words, tmp_path, monkeypatch):
    """The shop, whose users have a text, but for the first three."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    texts = [f"u{n},{'' if n < 3 else f'likes {COLOURS[n % 6]}'}\n" for n in range(40)]
    (tmp_path / "users.csv").write_text("who,about\n" + "".join(texts))
    return [
        *shop_words,
        f"data.source.users={tmp_path / 'users.csv'}",
        "data.source.user_text='{about}'",
    ]


TEXT = {
    "two_tower": ["architecture.user=text", "tuning=lora"],
    "cross_encoder": [
        "architecture=cross_encoder",
        "tuning=lora",
        "objective=bpr",
        "evaluation.protocol=candidates",
        "evaluation.candidates=8",
    ],
}


@pytest.mark.parametrize("queries", ["random", "all", "last"])
@pytest.mark.parametrize("name", TEXT)
def test_a_text_is_enough_for_a_query(told, name, queries):
    """A user's first event trains where the user has a text, as such cases are tested."""
    if (name, queries) == ("cross_encoder", "all"):
        pytest.skip("refused for its cost")
    words = [*told, *TEXT[name], f"data.queries={queries}"]
    made = build.assemble(compose(words))
    user, first = made.split.compute_user_rows(), made.split.offsets[:-1]
    train = np.flatnonzero(made.split.role == TRAIN)
    silent = [e for e in train if e in first and made.tables.users["text"][int(user[e])] == ""]
    assert len(silent) == 3
    assert sorted(made.examples._train) == sorted(set(train) - set(silent))
    before = f"{len(silent)} of {len(train)} liked events are no targets"
    assert any(before in note for note in made.split.notes)
    # Each of them is asked in some epoch of `random`, and in each of `all`.
    asked = set()
    for epoch in range(40 if queries == "random" else 1):
        rows = made.examples.make_train_rows(queries, made.datamodule.make_epoch_order(epoch))
        asked |= set(rows.event.tolist())
    alone = set(first.tolist()) - set(silent)
    assert (alone <= asked) if queries != "last" else not alone & asked
    batch = made.datamodule.make_train_batch(made.datamodule.make_epoch_order(0)[:6], 0)
    loss = made.recommender.parts.objective(
        made.recommender(batch), batch, made.recommender.get_objective_context()
    )
    assert torch.isfinite(loss.total)


def test_what_says_nothing_does_not_train_and_is_counted(told, shop, tmp_path):
    """Users of one event before the cut, and cases of users without any: the log counts them."""
    header, *rows = (shop / "events.csv").read_text().splitlines()
    late = []  # users begin one after the other, and overlap
    for n, row in enumerate(rows):
        who, what, _, stars = row.split(",")
        slot = {1: 34, 5: 38}.get(n // 5, 39 - n // 5)
        late.append(f"{who},{what},{1_600_000_000 + 100 * (n % 5) + 60 * slot},{stars}")
    (tmp_path / "late.csv").write_text("\n".join([header, *late]) + "\n")
    words = [w for w in told if not w.startswith(("data.split", "data.source.interactions"))]
    words += ["data.split=time", f"data.source.interactions={tmp_path / 'late.csv'}"]
    history = build.assemble(compose([*words, "tuning=lora"]))
    text = build.assemble(compose([*words, *TEXT["two_tower"]]))
    for made in (history, text):
        role, user, first = made.split.role, made.split.compute_user_rows(), made.split.offsets[:-1]
        has = np.unique(user[role == TRAIN])
        trains = np.unique(user[made.examples._train])
        notes = " ".join(made.split.notes)
        assert len(has) > len(trains)
        said = f"training: {len(has) - len(trains)} of {len(has)} users do not train for that."
        assert said in notes
        test = np.flatnonzero((role == TEST) & (made.split.label > 0))
        bare = [e for e in test if e in first]
        if made is text:
            bare = [e for e in bare if made.tables.users["text"][int(user[e])] == ""]
        answer = "an empty text is read" if made is text else "popularity answers them"
        said = f"test: {len(bare)} of {len(test)} cases have nothing before them: {answer}."
        assert len(bare) > 0
        assert said in notes
    assert len(text.examples._train) > len(history.examples._train)


def test_what_is_known_of_a_query_is_a_text(situated_words):
    """Words of its context are enough, but where nothing is known of it."""
    words = ["architecture.user=text", "architecture.context=[device]", "tuning=lora"]
    made = build.assemble(compose([*situated_words, *words, "architecture.context_as=text"]))
    first = made.split.offsets[:-1]
    asked = np.isin(first, made.examples._train)
    assert (asked == (made.context_features.codes["device"][first] > 0)).all()
    assert asked.all()
    plain = build.assemble(compose([*situated_words, *words]))  # learned vectors are no text
    assert not np.isin(first, plain.examples._train).any()


def composed(made, event):
    """A query's text by hand: the profile, then the titles before it, the latest first."""
    user = int(made.split.compute_user_rows()[event])
    history = slice(made.split.offsets[user], event)
    titles = [made.parts.texts[item] for item in made.split.item[history][::-1]]
    return "; ".join(filter(None, [made.tables.users["text"][user], *titles]))


@pytest.mark.parametrize("name", TEXT)
def test_the_floor_reads_what_the_model_reads(told, name):
    """Scores of the tfidf beside a run are cosines of the composed texts, as sklearn has them."""
    made = build.assemble(compose([*told, *TEXT[name]]))
    floor = build.make_baseline("tfidf", made.parts).eval()
    events = np.sort(np.concatenate([made.split.offsets[:-1], made.split.offsets[1:] - 1]))
    batch = made.examples.make_batch(made.examples.make_case_rows(events), made.datamodule.sizes)
    texts = [composed(made, event) for event in events]
    assert made.parts.written.compose_plain_texts(batch) == texts
    assert texts.count("") == 3
    vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
    items = vectors.fit_transform(made.parts.texts)
    want = (vectors.transform(texts) @ items.T).toarray()
    wordless = [not text for text in texts]
    want[wordless] = made.examples.count_train_items()
    got = floor.score(floor.queries(batch, batch.plan.items), floor.index_catalog())
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)
    assert not floor.needs_history
    # As a run of its own it says the same.
    alone = [w for w in told if not w.startswith(("trainer.ep", "trainer.b", "opt", "encoder"))]
    alone = build.assemble(
        compose([*alone, "architecture=tfidf", "architecture.user=text"])
    ).recommender.eval()
    assert torch.equal(
        alone.score(alone.queries(batch, batch.plan.items), alone.index_catalog()), got
    )


def test_lists_and_hard_negatives_of_a_text_run(told):
    """Every architecture ranks the same lists; hard negatives are those of the texts."""
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=6"]
    history = build.assemble(compose([*told, "tuning=frozen", *lists]))
    text = build.assemble(compose([*told, *TEXT["two_tower"], *lists]))
    for role in (VAL, TEST):
        one, other = (made.datamodule.lists[role] for made in (history, text))
        assert (one.candidates == other.candidates).all()
    hard = ["data.negatives=hard", "data.hard_top=4", "objective=bpr", "objective.negatives=2"]
    made = build.assemble(compose([*told, *TEXT["two_tower"], *hard]))
    floor = build.make_baseline("tfidf", made.parts).eval()
    first = made.split.offsets[3]
    batch = made.examples.make_batch(
        made.examples.make_case_rows(np.array([first])), made.datamodule.sizes
    )
    scores = floor.score(floor.queries(batch, batch.plan.items), floor.index_catalog())[0]
    found = made.datamodule.sampler.mined
    (mined,) = found.items[found.at == first]
    allowed = np.ones(len(scores), dtype=bool)
    user = made.split.compute_user_rows()
    allowed[made.split.item[(user == 3) & (made.split.role == TRAIN)]] = False
    best = np.sort(scores.numpy()[allowed])[::-1][:4]
    np.testing.assert_allclose(scores.numpy()[mined], best)
    assert best[0] > 0
