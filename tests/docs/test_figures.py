"""Figures of README are those of the pages that it names as their source."""

import re

import pytest

from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
QUALITY = "benchmarks/quality/README.md"
STUDY = "benchmarks/quality/study/{}.md"


def figure(page, label, column, section=""):
    """The mean in a cell of the first table, behind a heading, that has the row and the column."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(section)[2]
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    head: list[str] = []
    for cells in lines:
        if column in cells:
            head = cells
        if head and len(cells) == len(head) and cells[1].replace(" (baseline)", "") == label:
            return float(cells[head.index(column)].split(" ")[0])
    raise AssertionError(f"{page} has no {label} with {column}")


def row_of(start):
    (row,) = [line for line in README.splitlines() if line.startswith(f"| {start}")]
    return row


@pytest.mark.parametrize(
    ("row", "page", "column", "shown"),
    [
        (
            "ml-100k, MiniLM",
            QUALITY,
            "ndcg@10",
            {"LoRA, last 2 layers": "LoRA", "adapter, last 2 layers": "adapter", "frozen": "|"},
        ),
        ("ml-100k, MiniLM", STUDY.format("ml-baselines"), "ndcg@10", {"item kNN": "item kNN"}),
        (
            "amazon-instruments, MiniLM",
            QUALITY,
            "ndcg@10",
            {
                "LoRA, last 2 layers, 2,000 users *": "LoRA",
                "frozen, 2,000 users *": "|",
                "frozen *": ";",
            },
        ),
        (
            "amazon-instruments, MiniLM",
            STUDY.format("amazon-baselines"),
            "ndcg@10",
            {"EASE": "EASE"},
        ),
        (
            "ml-100k, small BERT",
            STUDY.format("ml-catalog"),
            "ndcg@10",
            {
                "full, two towers": "full",
                "top layers, two towers": "top layers",
                "LoRA, two towers": "LoRA",
                "frozen, two towers": "|",
                "item kNN": "item kNN",
                "SASRec on ids": "SASRec",
                "EASE": "EASE",
            },
        ),
        (
            "amazon-instruments, small BERT",
            STUDY.format("amazon-catalog"),
            "ndcg@10",
            {
                "full, two towers": "full",
                "top layers, two towers": "top layers",
                "LoRA, two towers": "LoRA",
                "frozen, two towers": "|",
                "item kNN": "item kNN",
                "SASRec on ids": "SASRec",
            },
        ),
        (
            "ml-100k, target among 20",
            STUDY.format("ml-lists"),
            "sampled19popular-ndcg@10",
            {
                "full, two towers": "full",
                "adapter, two towers": "adapter",
                "LoRA, cross-encoder": "cross-encoders",
                "frozen, two towers": "|",
                "popularity": "popularity",
            },
        ),
    ],
)
def test_the_table_of_answers_has_the_figures_of_its_sources(row, page, column, shown):
    section = "## amazon-instruments" if page == QUALITY and "amazon" in row else "\n## "
    cells = row_of(row).replace("**", "")
    assert page in row_of(row)
    for label, name in shown.items():
        value = figure(page, label, column, section)
        (said,) = re.findall(rf"{re.escape(name)} (\d+\.\d)(?!\d)", cells)
        assert abs(float(said) - value) < 0.0501, (label, value)


def test_the_cost_beside_them_is_theirs_too():
    for label, row in (
        ("LoRA, last 2 layers", "ml-100k, MiniLM"),
        ("frozen", "ml-100k, MiniLM"),
        ("LoRA, last 2 layers, 2,000 users *", "amazon-instruments, MiniLM"),
    ):
        section = "## amazon-instruments" if "amazon" in row else "\n## ml-100k"
        seconds = f"{figure(QUALITY, label, 'CPU seconds', section):,.0f}"
        assert f"{seconds} CPU s" in row_of(row)


def test_what_compare_said_is_what_the_benchmark_has():
    line = {"frozen": "frozen", "lora": "LoRA, last 2 layers"}
    for name, label in line.items():
        (said,) = re.findall(rf"^{name} +([\d.]+) ±", README, flags=re.MULTILINE)
        assert float(said) == figure(QUALITY, label, "ndcg@10", "\n## ml-100k")


def test_what_finds_new_items_is_of_the_page_of_hybrids():
    page = "benchmarks/quality/hybrids/amazon-instruments.md"
    rows = {
        "`ease_text` has": "EASE + texts, MiniLM",
        "`item_knn_text`": "item kNN + texts, MiniLM",
        "item kNN": "item kNN",
        "EASE": "EASE",
    }
    said = " ".join(README.partition("Where a fifth does")[2].partition("##")[0].split())
    for name, row in rows.items():
        found = re.search(rf"{name} (\S+)(?: and finds new items)? \((\S+)\)", said)
        assert found is not None, name
        for text, column in zip(found.groups(), ("ndcg@10", "cold"), strict=True):
            value = figure(page, row, column, "# amazon-instruments")
            assert abs(float(text) - value) <= 0.0501, (name, column)
