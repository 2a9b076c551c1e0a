"""What can be shown is told of the decision that is made: interval and Holm's test, together."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.compare import paired
from recsys.compare.outcome import BaselineDifference
from recsys.compare.report import sentences, tables
from recsys.compare.statistics.contrasts import adjust_holm, compute_contrast
from tests.compare.samples import TWO, cases, compared, leave, ranks
from tests.compare.statistics.test_contrasts import USERS, normal

MANY = 5


def family(number, shift, size):
    """The contrasts of five methods to a sixth, of which the first is better by a shift."""
    rng = np.random.default_rng([31, number])
    first, *others, base = normal(rng, [3] * (MANY + 1), shift=shift, users=USERS // 4)
    return [
        compute_contrast(x, base, np.arange(USERS // 4), size=size, draws=800, seed=number)
        for x in (first, *others)
    ]


def test_the_smallest_difference_of_a_family_is_found_in_four_of_five():
    """Each report's own, after Holm; told of a single test at 5 %, it was found in under half."""
    alone, size = [], 0.05 / MANY
    for number in range(30):
        smallest = family(number, 0.0, size)[0].smallest
        found = family(100 + number, smallest, size)
        corrected = adjust_holm([c.p for c in found])
        differences = [
            BaselineDifference("", c, p, None) for c, p in zip(found, corrected, strict=True)
        ]
        alone.append(sentences.is_significant(differences[0], 0.05))
    assert np.mean(alone) >= 0.68


def test_a_stricter_test_needs_a_larger_difference():
    a, b = normal(np.random.default_rng(0), [3, 3])
    one, many = (
        compute_contrast(a, b, np.arange(USERS), size=s).smallest for s in (0.05, 0.05 / 30)
    )
    assert many > 1.3 * one


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    root = tmp_path_factory.mktemp("family")
    return [
        leave(root, f"{name}{seed}", [*TWO, f"tuning={name}", f"seed={seed}"], cases(r))
        for at, name in enumerate(("frozen", "lora", "full"))
        for seed in range(2)
        for r in [ranks(seed + 10 * at)]
    ]


def test_the_page_says_at_what_error_rate(three):
    alone, found = compared(three[:4]), compared(three)
    (one,) = [d.found.smallest for d in alone.differences]
    same = next(d.found.smallest for d in found.differences if d.label == "lora two_tower")
    assert same > 1.1 * one
    assert "(tested at 5 %)" in sentences.describe_comparison(alone)[0]
    assert "(after Holm: tested at 5 % / 2)" in sentences.describe_comparison(found)[0]
    note = tables.make_differences_table(found).note
    assert "after Holm: tested at 5 % / 2" in note
    assert "a difference is shown where p (Holm) is under 0.05" in note
    assert "found in about 80 % of repetitions or more" in note


def test_users_are_drawn_so_often_that_holms_smallest_p_can_be_reached(three):
    assert [paired.count_draws(2000, 0.05, count) for count in (1, 2, 5, 20, 99)] == [
        2000, 2000, 4000, 16_000, 20_000,
    ]  # fmt: skip
    assert not any("draws" in note for note in compared(three).notes)
    notes = compared(three, level=0.9995).notes
    assert any("is of 20,000 draws" in note and "asks for 0.0003" in note for note in notes)


@pytest.mark.parametrize(("seeds", "told"), [(2, True), (3, False)])
def test_two_seeds_are_cautioned(tmp_path, seeds, told):
    floor = leave(tmp_path, "p", ["architecture=popularity"], cases(ranks(9)))
    runs = [
        leave(tmp_path, f"f{seed}", [*TWO, "tuning=frozen", f"seed={seed}"], cases(ranks(seed)))
        for seed in range(seeds)
    ]
    for base in ("popularity", "frozen two_tower"):
        notes = compared([floor, *runs], baseline=base).notes
        assert any("Two seeds of frozen two_tower:" in note for note in notes) is told


def test_no_difference_is_named_that_the_metric_leaves_no_room_for(three):
    found = compared(three[:4])
    (one,) = found.differences
    mean = found.find_row("frozen two_tower").metrics["ndcg@10"].mean
    room = max(mean, 1 - mean)

    def told(smallest):
        moved = replace(one, p_holm=0.5, found=replace(one.found, smallest=smallest))
        those = replace(found, differences=[moved])
        table = tables.make_differences_table(those)
        return (
            sentences.describe_comparison(those)[0],
            table.rows[0][6],
            "none: not one" in table.note,
        )

    text, cell, legend = told(room + 0.01)
    assert "no difference that the metric leaves room for would be found" in text
    assert (cell, legend) == ("none", True)
    assert "118.86" not in told(1.1886)[0]
    text, cell, legend = told(room - 0.01)
    assert f"a true difference of {cell} points" in text
    assert (cell, legend) == (sentences.format_points(room - 0.01), False)
