"""Words of texts with blanks between them, and pieces of texts without."""

import re

import pytest

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.examples import TEST
from recsys.data.columns.words import split_words
from recsys.evaluation.beyond_accuracy import compute_text_vectors

LATIN = [
    "the 3rd lamp_shade, 24w (e27) — crème brûlée",
    "don't; naïve-café! 2024/05",
    "Привет, мир; φίλη 한국어 제목 שלום مرحبا",
    "हिन्दी शीर्षक e\u0301te\u0301 \U0001f600",
    "",
]


@pytest.mark.parametrize("text", LATIN)
def test_scripts_with_blanks_have_the_words_they_always_had(text):
    assert split_words(text) == re.findall(r"\w+", text)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("伊麗莎白,王", "伊 麗 莎 白 伊麗 麗莎 莎白 王"),
        ("sony製カメラa7", "sony 製 カ メ ラ 製カ カメ メラ a7"),
        ("ラーメン・時々", "ラ ー メ ン ラー ーメ メン 時 々 時々"),
        ("\U00020bb7野家", "\U00020bb7 野 家 \U00020bb7野 野家"),
        ("ที่นี่ 55", "ที่ ี่น ่นี นี่ 55"),
        ("ລາວ ກາ", "ລາວ ກາ"),
        ("ភាសា", "ភាស ាសា"),
        ("မြန်မာ", "မြန ြန် န်မ ်မာ"),
        ("한국어 제목", "한국어 제목"),
    ],
)
def test_pieces_stand_for_words_where_no_blanks_do(text, want):
    assert split_words(text) == want.split()


COLOURS = ["紅色", "藍色", "綠色", "黑色", "白色", "棕色"]
THINGS = ["檯燈", "椅子", "桌子", "書架", "鏡子"]


@pytest.fixture
def chinese(shop, shop_words, tiny_bytes, tmp_path, monkeypatch):
    """The shop with Chinese titles, of which no two are equal: users like one colour each."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    titles = [f"{c}的{t}" for c in COLOURS for t in THINGS]
    rows = [f"0{i:02d},{title}\n" for i, title in enumerate(titles)]
    (tmp_path / "items.csv").write_text("what,name\n" + "".join(rows), encoding="utf-8")
    return [
        *(w for w in shop_words if not w.startswith(("data.source.items", "encoder.model"))),
        f"encoder.model={tiny_bytes}",
        f"data.source.items={tmp_path / 'items.csv'}",
    ]


def test_chinese_titles_tell_what_comes_next(chinese):
    """Users have four of their colour's five things, so that the target is the fifth."""
    chinese = [w for w in chinese if not w.startswith(("trainer.", "optimizer.", "encoder."))]
    made = build.assemble(compose([*chinese, "architecture=tfidf"]))
    found = made.recommender.evaluate(made.datamodule.make_case_loader(TEST))
    assert found["hr@10"] == 1.0
    assert found["mrr"] > 0.9
    vectors = compute_text_vectors([*made.parts.texts])
    assert (vectors[0] @ vectors[1].T).sum() > 2 * (vectors[0] @ vectors[6].T).sum() > 0


def test_lists_and_hard_negatives_follow_the_pieces(chinese):
    """tfidf's half of a list, and what is hard, is like the history."""
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=4", "tuning=frozen"]
    hard = ["objective=bpr", "objective.negatives=2", "data.negatives=hard", "data.hard_top=3"]
    made = build.assemble(compose([*chinese, *lists, *hard, "evaluation.mask_history=false"]))
    ranked = made.datamodule.lists[TEST]
    colour = made.split.item[ranked.at] // 5
    # In turn: popularity's first, tfidf's first, and so on.
    alike = (ranked.candidates // 5 == colour[:, None]).sum(1)
    assert alike.min() >= 2
    mined = made.datamodule.sampler.mined
    for event, row in zip(mined.at, mined.items, strict=True):
        user = made.split.compute_user_rows()[event]
        had = made.split.item[made.split.offsets[user] : event]
        # Of one colour with what was had, or the same thing: a whole title has nothing in common.
        assert row[0] // 5 in had // 5 or row[0] % 5 in had % 5


def test_the_length_of_a_chinese_title_is_that_of_its_characters(chinese):
    """As words between blanks every title would be one word, and go."""
    chinese = [w for w in chinese if not w.startswith(("trainer.", "optimizer.", "encoder."))]
    kept = build.assemble(compose([*chinese, "architecture=tfidf", "data.min_text=5"]))
    assert len(kept.tables.items) == 30
