"""What a method costs beside another: only seconds that say something of the methods."""

import pytest

from recsys.compare.report import plots, sentences, tables
from tests.compare.samples import TWO, cases, compared, leave, ranks


def took(method=None, cpu=3.0, wall=None, processor=None, kept=None, **more):
    """A run's seconds: of the method alone, of the whole command, of what runs share."""

    def edit(result):
        own = {"method_cpu_seconds": method, "method_seconds": wall, "kept_cpu_seconds": kept}
        result["cost"] |= more
        result["cost"] |= {"cpu_seconds": cpu} | {k: v for k, v in own.items() if v is not None}
        result["versions"] |= {} if processor is None else {"cpu": processor}

    return edit


def two(root, left, right, words=(), more=()):
    """Frozen with some words and seconds, and LoRA with those and more."""
    folders = [
        leave(root, "a", [*TWO, "tuning=frozen", *words], cases(ranks(0)), left),
        leave(root, "b", [*TWO, "tuning=lora", *words, *more], cases(ranks(1)), right),
    ]
    return compared(folders)


def test_tracking_does_not_make_a_method_dear(tmp_path):
    """The whole command took seven times as long, and the method itself did not."""
    found = two(
        tmp_path,
        took(0.33, 0.4),
        took(0.33, 2.6),
        ["tracking.wandb=off"],
        ["tracking.wandb=online"],
    )
    assert not found.unlike
    text = " ".join(sentences.describe_comparison(found))
    assert "took as many CPU seconds as frozen two_tower" in text
    assert found.front == [max(found.rows, key=lambda r: r.metrics["ndcg@10"].mean).label]
    assert plots.draw_pareto(found).count("0.33 CPU seconds</title>") == 2
    head, rows = tables.make_cost_table(found).head, tables.make_cost_table(found).rows
    assert [row[head.index("method, CPU s")] for row in rows] == ["0.33", "0.33"]
    assert [row[head.index("CPU, s")] for row in rows] == ["0.40", "2.60"]


def test_runs_of_before_are_compared_by_the_whole_command_and_a_note_says_so(tmp_path):
    found = two(tmp_path, took(), took(0.3, 6.0))
    assert found.basis.key == "cpu_seconds"
    assert "took 2.0 times the CPU seconds" in " ".join(sentences.describe_comparison(found))
    assert any("those of the whole command" in note for note in found.notes)
    # Then tracking does count, and the seconds are not set against each other.
    words = ["tracking.wandb=off"], ["tracking.wandb=offline"]
    other = two(tmp_path / "x", took(), took(0.3, 6.0), *words)
    assert other.unlike == ["tracking.wandb"]
    assert "CPU seconds" not in " ".join(sentences.describe_comparison(other))


@pytest.mark.parametrize("words", [["trainer.devices=2"], ["trainer.accelerator=gpu"]])
def test_where_others_do_the_work_the_clock_counts(tmp_path, words):
    found = two(tmp_path, took(1.0, wall=10.0), took(9.0, wall=20.0), words)
    assert (found.basis.key, found.basis.unit) == ("method_seconds", "seconds")
    assert "took 2.0 times the seconds of frozen" in " ".join(sentences.describe_comparison(found))


@pytest.mark.parametrize(
    "word",
    ["evaluation.beyond=false", "evaluation.k=[5,10]", "evaluation.batch_size=8",
     "encoder.cache=false", "encoder.cache_gb=1", "encoder.cache_place=disk",
     "encoder.chunk_tokens=99", "trainer.threads=7", "profile=true"],
)  # fmt: skip
def test_what_changes_seconds_and_no_result_is_named(tmp_path, word):
    found = two(tmp_path, took(1.0), took(2.0), more=[word])
    assert found.unlike == [word.partition("=")[0]]
    assert any(word.partition("=")[0] in note for note in found.notes)


def test_another_processor_is_named_and_an_unknown_one_is_not(tmp_path):
    def unlike(place, left, right):
        return two(tmp_path / place, took(1, processor=left), took(1, processor=right)).unlike

    assert unlike("other", "a", "b") == ["versions.cpu"]
    assert unlike("same", "a", "a") == unlike("unknown", "a", None) == []


def test_what_has_no_encoder_has_no_cache_that_could_differ(tmp_path):
    a = leave(tmp_path, "a", ["architecture=popularity"], cases(ranks(0)), took(1.0))
    words = [*TWO, "tuning=frozen", "encoder.cache=false"]
    b = leave(tmp_path, "b", words, cases(ranks(1)), took(1.0))
    assert compared([a, b], baseline="popularity").unlike == []
    few = leave(tmp_path, "few", [*words, "data.train_users=9"], cases(ranks(1)), took(1.0))
    assert not compared([a, few], baseline="popularity").unlike, "floors have no training users"


def test_seconds_are_told_with_and_without_what_is_kept_between_runs(tmp_path):
    """Heads train in a second and a half once the catalog is encoded, which takes 47."""
    found = two(tmp_path / "known", took(1.5, kept=47.0), took(120.0, kept=30.0))
    text = " ".join(sentences.describe_comparison(found))
    assert "took 80 times the CPU seconds of frozen two_tower, and 3.1 times with what is" in text
    head, rows = tables.make_cost_table(found).head, tables.make_cost_table(found).rows
    at = head.index("with what is kept, CPU s")
    assert [row[at] for row in rows] == ["48.5", "150"]
    # The cheaper one changes with the catalog's encoding.
    turned = two(tmp_path / "turned", took(1.5, kept=470.0), took(120.0, kept=30.0))
    text = " ".join(sentences.describe_comparison(turned))
    assert "and 0.3 of them with what is kept between runs" in text
    assert turned.front != turned.front_kept
    assert f"With what is kept between runs: {'; '.join(turned.front_kept)}." in text
    same = two(tmp_path / "same", took(1.0, kept=1.0), took(2.0, kept=2.0))
    assert "The same holds with what is kept between runs." in " ".join(
        sentences.describe_comparison(same)
    )


def test_what_older_runs_did_not_know_is_absent(tmp_path):
    found = two(tmp_path, took(1.5), took(3.0, kept=47.0))
    text = " ".join(sentences.describe_comparison(found))
    assert "took 2.0 times the CPU seconds of frozen two_tower, without what is kept" in text
    assert found.front_kept == []
    head, rows = tables.make_cost_table(found).head, tables.make_cost_table(found).rows
    assert [row[head.index("with what is kept, CPU s")] for row in rows] == ["-", "50.0"]
    # Of two processes, they knew what the first one cost.
    old = two(tmp_path / "ranks", took(1.0, wall=10.0), took(9.0, wall=20.0), ["trainer.devices=2"])
    head = tables.make_cost_table(old).head
    assert "CPU, s" not in head
    assert "peak memory (sampled), MiB" not in head
    assert "whole run, s" in head


def test_several_processes_are_compared_by_the_cpu_seconds_of_all(tmp_path):
    ranks = {"ranks": 2, "largest_rank_peak_mb_sampled": 60.0}
    words = ["trainer.devices=2"]
    found = two(tmp_path, took(1.0, **ranks), took(9.0, **ranks), words)
    assert found.basis.key == "method_cpu_seconds"
    head, rows = tables.make_cost_table(found).head, tables.make_cost_table(found).rows
    assert rows[0][head.index("peak memory (sampled), MiB")] == "100"
    assert rows[0][head.index("largest process (sampled), MiB")] == "60.0"
    assert (
        "largest process (sampled), MiB"
        not in tables.make_cost_table(two(tmp_path / "one", took(1.0), took(1.0))).head
    )


def test_what_took_no_step_trained_nothing(tmp_path):
    """Runs of before say how many parameters there are to train."""

    def still(result):
        result["validation"] = {"steps": 0}

    found = two(tmp_path, still, took(1.0))
    assert [row.cost["trained_share"] for row in found.rows if not row.floor] == [0.0, 1.0]
