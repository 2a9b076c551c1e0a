"""What a method costs beside another: only seconds that say something of the methods."""

import pytest

from recsys.comparison import plots, sentences, tables
from tests.comparison.samples import TWO, cases, compared, leave, ranks


def took(method=None, cpu=3.0, wall=None, processor=None):
    """A run's seconds: of the method alone, of the whole command; and its processor."""

    def edit(result):
        own = {"method_cpu_seconds": method, "method_seconds": wall}
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
    text = " ".join(sentences.write(found))
    assert "took as many CPU seconds as frozen two_tower" in text
    assert found.front == [max(found.rows, key=lambda r: r.metrics["ndcg@10"].mean).label]
    assert plots.pareto(found).count("0.33 CPU seconds</title>") == 2
    head, rows = tables.cost(found).head, tables.cost(found).rows
    assert [row[head.index("method, CPU s")] for row in rows] == ["0.33", "0.33"]
    assert [row[head.index("CPU, s")] for row in rows] == ["0.40", "2.60"]


def test_runs_of_before_are_compared_by_the_whole_command_and_a_note_says_so(tmp_path):
    found = two(tmp_path, took(), took(0.3, 6.0))
    assert found.basis.key == "cpu_seconds"
    assert "took 2.0 times the CPU seconds" in " ".join(sentences.write(found))
    assert any("those of the whole command" in note for note in found.notes)
    # Then tracking does count, and the seconds are not set against each other.
    words = ["tracking.wandb=off"], ["tracking.wandb=offline"]
    other = two(tmp_path / "x", took(), took(0.3, 6.0), *words)
    assert other.unlike == ["tracking.wandb"]
    assert "CPU seconds" not in " ".join(sentences.write(other))


@pytest.mark.parametrize("words", [["trainer.devices=2"], ["trainer.accelerator=gpu"]])
def test_where_others_do_the_work_the_clock_counts(tmp_path, words):
    found = two(tmp_path, took(1.0, wall=10.0), took(9.0, wall=20.0), words)
    assert (found.basis.key, found.basis.unit) == ("method_seconds", "seconds")
    assert "took 2.0 times the seconds of frozen" in " ".join(sentences.write(found))


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
