"""The first sentence: what is better, and whether anything is above what needs no training."""

import pytest

from recsys.compare.report import tables, verdict
from recsys.compare.short_names import shorten_label
from tests.compare.samples import TWO, cases, compared, leave, ranks


def found(tmp_path, shifts, floor=None, **changes):
    """Frozen and others, better by a shift; popularity as a floor of every run."""

    def edit(result):
        if floor is not None:
            result["floors"] = {"popularity": {"ndcg@10": floor}, "tfidf": {"ndcg@10": 0.01}}

    folders = [
        leave(tmp_path, f"{name}-{seed}", [*TWO, f"tuning={name}", f"seed={seed}"],
              cases(ranks(10 * at + seed, shift)), edit)
        for at, (name, shift) in enumerate({"frozen": 0.0, **shifts}.items())
        for seed in range(3)
    ]  # fmt: skip
    return compared(folders, **changes)


NAMES = {f"{name} two_tower": name for name in ("frozen", "lora", "full", "bitfit")}


@pytest.mark.parametrize(
    ("shift", "floor", "said"),
    [
        (
            1.5,
            0.9,
            ["better than frozen by", "Neither is above the best baseline, popularity (9"],
        ),
        (-1.5, 0.0, ["worse than frozen by", "Both are above the best baseline, tfidf (1.00)"]),
        (0.0, None, ["lora and frozen are not told apart ("]),
    ],
)
def test_one_contrast_is_a_sentence(tmp_path, shift, floor, said):
    text = verdict.describe_verdict(found(tmp_path, {"lora": shift}, floor), NAMES)
    assert all(part in text for part in said)
    assert ("baseline" in text) is (floor is not None)
    assert ("by the means" in text) is (floor is not None)


def test_a_margin_and_several_contrasts_are_told(tmp_path):
    close = verdict.describe_verdict(found(tmp_path / "a", {"lora": 0.0}, margin=20.0), NAMES)
    assert close.startswith("lora and frozen are within 20 points of ndcg@10 (")
    several = found(tmp_path / "b", {"full": 2.0, "lora": 1.5, "bitfit": -2.0}, 0.2)
    text = verdict.describe_verdict(several, NAMES)
    assert text.startswith("By ndcg@10, against frozen: better: full (+")
    assert "; worse: bitfit (-" in text
    means = {NAMES[r.label]: r.metrics["ndcg@10"].mean for r in several.rows if r.trains}
    above = [name for name, mean in means.items() if mean > 0.2]
    assert 0 < len(above) < 4
    assert f"{' and '.join([', '.join(above[:-1]), above[-1]])} are above" in text
    # In the report, methods have their labels.
    assert "full two_tower (+" in verdict.describe_verdict(several)


def test_a_baseline_within_an_interval_is_told(tmp_path):
    plain = found(tmp_path / "a", {})
    mean = plain.rows[0].metrics["ndcg@10"].mean
    text = verdict.describe_verdict(found(tmp_path / "b", {}, mean + 1e-4), NAMES)
    assert text.startswith(f"One method: frozen, {100 * mean:.2f} ndcg@10. frozen is not above")
    low, high = (100 * each for each in (plain.rows[0].interval.low, plain.rows[0].interval.high))
    said = f"The {100 * mean + 0.01:.2f} of popularity lies within the 95 % interval of frozen "
    assert f"{said}({low:.2f} to {high:.2f}): not shown to differ by this." in text


def test_a_baseline_with_a_run_of_its_own_counts(tmp_path):
    folders = [
        leave(tmp_path, "floor", ["architecture=popularity"], cases(ranks(0, 3.0))),
        leave(tmp_path, "lora", [*TWO, "tuning=lora"], cases(ranks(1))),
    ]
    text = verdict.describe_verdict(compared(folders, baseline="popularity"), NAMES)
    assert "lora is worse than popularity by" in text
    assert "lora is not above popularity (" in text


def test_a_floor_of_one_method_is_called_by_its_short_name():
    names = {**NAMES, "lora two_tower tuning.rank=4": "lora tuning.rank=4"}
    assert shorten_label("zero-shot of lora two_tower", names) == "zero-shot of lora"
    long = "zero-shot of lora two_tower tuning.rank=4 and 2 more"
    assert shorten_label(long, names) == "zero-shot of lora tuning.rank=4 and 2 more"
    assert shorten_label("popularity", names) == "popularity"
    assert shorten_label("zero-shot of lora two_tower", {}) == "zero-shot of lora two_tower"


def test_the_table_says_whose_seconds_they_are(tmp_path):
    plain = found(tmp_path, {"lora": 0.5})
    assert "CPU s: of the whole command." in tables.make_summary_table(plain, NAMES).note
