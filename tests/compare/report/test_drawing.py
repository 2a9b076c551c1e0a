"""Axes, labels and tables that can be read, whatever is in them."""

import io
import itertools
import math

import pytest

from recsys.compare.measures.cost import format_plain
from recsys.compare.report import table
from recsys.compare.report.sentences import format_equals_p, format_p, format_points, format_ratio
from recsys.compare.report.svg import (
    SIZE,
    AxisScale,
    compute_log_ticks,
    compute_ticks,
    make_scale,
    measure_text,
    place_labels,
    spread_places,
    truncate_text,
)
from recsys.compare.report.table import TextTable


def test_ticks_are_round_and_within():
    assert compute_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert compute_ticks(-0.031, 0.027, 6) == [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02]
    for low, high in ((0.1, 0.13), (17, 4000), (-5, -4.2)):
        found = compute_ticks(low, high)
        assert 3 <= len(found) <= 11
        assert low - 1e-9 <= found[0]
        assert found[-1] <= high + 1e-9


def test_log_ticks_are_powers_and_halves():
    assert compute_log_ticks(1, 100) == [1, 2, 5, 10, 20, 50, 100]
    assert len(AxisScale(2.4, 4.1, 0, 1, log=True).compute_ticks()) > 2  # too narrow for them
    assert compute_log_ticks(2.4, 11.25) == [
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
    ]  # costs from 3 to 9: two before
    assert compute_log_ticks(3, 3e6) == [10, 100, 1000, 10_000, 100_000, 1_000_000]


def test_a_scale_keeps_all_values_inside():
    scale = make_scale([3.0, 9.0], 100, 0)
    assert 0 < scale(9.0) < scale(3.0) < 100
    logs = make_scale([1.0, 1000.0], 0, 100, log=True)
    assert logs(10.0) - logs(1.0) == pytest.approx(logs(1000.0) - logs(100.0))
    alone = make_scale([5.0], 0, 100)
    assert alone(5.0) == pytest.approx(50)
    assert math.isfinite(make_scale([0.0, 0.0], 0, 1)(0.0))
    assert AxisScale(0, 1, 10, 20)(0.5) == 15


def test_places_are_moved_apart_and_stay_in_order_and_inside():
    places = [50.0, 51.0, 52.0, 10.0, 99.0, 98.0]
    moved = spread_places(places, 12, 0, 100)
    order = sorted(range(6), key=lambda at: places[at])
    for a, b in itertools.pairwise(order):
        assert moved[b] - moved[a] >= 12 - 1e-9
    assert min(moved) >= 0
    assert max(moved) <= 100
    assert spread_places([10.0, 60.0], 12, 0, 100) == [10.0, 60.0]
    crowded = spread_places([5.0] * 30, 12, 0, 100)
    assert crowded[0] == pytest.approx(0)
    assert crowded[-1] == pytest.approx(100)
    assert spread_places([], 12, 0, 100) == []


def test_labels_of_crowded_points_do_not_overlap():
    points_ = [(100.0 + 9 * at, 200.0 + 5 * (at % 3)) for at in range(9)]
    texts = [f"lora_two_tower rank={at}" for at in range(9)]
    placed = place_labels(texts, points_, (60, 10, 840, 390))
    boxes = []
    for text, (x, y, anchor, _) in zip(texts, placed, strict=True):
        wide = measure_text(text)
        left = {"start": x, "end": x - wide, "middle": x - wide / 2}[anchor]
        boxes.append((left, y - SIZE / 2, left + wide, y + SIZE / 2))
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert all(box[0] >= 60 and box[2] <= 840 for box in boxes)
    assert any(far for *_, far in placed)


def test_a_long_name_loses_its_middle():
    assert truncate_text("short", 200) == "short"
    got = truncate_text("lora_two_tower tuning.rank=4 optimizer.lr=0.001", 150)
    assert measure_text(got) <= 150
    assert got.startswith("lora_")
    assert got.endswith("0.001")


HARD = TextTable(
    "50 % & more_of $it$",
    ["a|b", "x^2"],
    [["<b>[red]&", "1 \N{PLUS-MINUS SIGN} 2"], ["#1 {y}~\\z", "3"]],
    rules=(1,),
)


def test_latex_escapes_every_sign():
    text = "\n".join(table.render_latex(HARD))
    assert r"50 \% \& more\_of \$it\$" in text
    assert r"a\textbar{}b & x\textasciicircum{}2 \\" in text
    assert r"\textless{}b\textgreater{}[red]\& & 1 $\pm$ 2 \\" in text
    assert r"\#1 \{y\}\textasciitilde{}\textbackslash{}z & 3 \\" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert r"\begin{tabular}{lr}" in text


def test_markdown_and_html_keep_their_columns():
    lines = table.render_markdown(HARD)
    assert "| a\\|b | x^2 |" in lines
    page = "\n".join(table.render_html(HARD))
    assert "&lt;b&gt;[red]&amp;" in page
    assert '<tr class="rule">' in page


def test_rich_takes_nothing_for_markup():
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    table.print_table(HARD, console)
    assert "<b>[red]&" in console.export_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.034, "0.03"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (123.4, "123"),
        (9_994, "9994"),
        (9_999, "10.0k"),
        (999_900, "1.00M"),
        (2.5e12, "2.50T"),
    ],
)
def test_costs_have_three_figures(value, text):
    assert format_plain(value) == text


def test_numbers_are_written_as_they_should():
    assert format_p(0.0123) == ".012"
    assert format_p(0.0004) == "< .001"
    assert format_p(1.0) == "1.000"
    assert format_equals_p(0.04) == "p = .040"
    assert format_equals_p(0.0001) == "p < .001"
    assert format_points(0.0051, True) == "+0.51"
    assert format_points(-0.0000001, True) == "0.000"
    assert format_points(0.0) == "0.00"
    assert format_points(0.0003) == "0.030"
    assert format_ratio(0.62) == "0.6"
    assert format_ratio(12.4) == "12"
    assert format_ratio(0.04) == "0.04"
