"""Two processes do together what one does alone: the real command, started once with each."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recsys.testing.shop import make_shop_words


def words(shop, tiny_bert, folder, devices, *more):
    return [
        *make_shop_words(shop, tiny_bert),
        "tuning=lora",
        "tracking.wandb=off",
        "trainer.precision=auto",
        "trainer.threads=1",
        "trainer.epochs=2",
        # 40 users: the second batch of an epoch holds one, so that a rank has nothing of its own.
        "trainer.batch_size=39",
        "trainer.log_every=1",
        "optimizer.lr=0.003",
        f"trainer.devices={devices}",
        f"output={folder}",
        *more,
    ]


FIT = (sys.executable, "-m", "recsys.fit")


def start(arguments, cache, command=FIT):
    hidden = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "RECSYS_RUN_FOLDER")
    env = {k: v for k, v in os.environ.items() if k not in hidden and "MASTER_" not in k}
    env |= {"RECSYS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *arguments],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def one_and_two(shop, tiny_bert, root, *more, apart=((), ())):
    """Folder and output of a run with one process and of one with two, at the same time.

    Each may have words of its own.
    """
    # No dropout in the pretrained model: ranks would draw other masks than one process.
    path = root / "encoder"
    shutil.copytree(tiny_bert, path)
    config = json.loads((path / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (path / "config.json").write_text(json.dumps(config))
    processes = {
        devices: start(
            words(shop, path, root / str(devices), devices, *more, *apart[devices - 1]),
            root / "cache",
        )
        for devices in (1, 2)
    }
    out = {}
    for devices, process in processes.items():
        stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stdout + stderr
        assert "Warning" not in stderr
        (folder,) = (root / str(devices)).iterdir()
        out[devices] = (folder, stdout)
    return out


@pytest.fixture(scope="module")
def runs(shop, tiny_bert, tmp_path_factory):
    """Of the in-batch softmax."""
    return one_and_two(shop, tiny_bert, tmp_path_factory.mktemp("ddp"))


def assert_equal_logs(runs, steps):
    one, two = (pl.read_csv(runs[n][0] / "log" / "metrics.csv") for n in (1, 2))
    assert one.columns == two.columns
    assert one["step"].to_list() == two["step"].to_list()
    assert one["train/loss"].drop_nulls().len() == steps
    for name in (name for name in one.columns if name != "seconds"):  # a clock never repeats
        a, b = (frame[name].cast(pl.Float64).fill_null(-1.0).to_torch() for frame in (one, two))
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True), name


def assert_equal_weights(runs, atol=1e-5):
    one, two = (load_file(runs[n][0] / "checkpoints" / "best.safetensors") for n in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=atol), name


def test_losses_gradients_and_validation_are_equal(runs):
    assert_equal_logs(runs, steps=4)


def test_weights_are_equal(runs):
    assert_equal_weights(runs)


@pytest.mark.slow
def test_a_softmax_over_all_items_is_the_same_on_two_ranks(shop, tiny_bert, tmp_path):
    """Each chunk of the catalog passes an encoder that trains, and again in backward."""
    full = ["objective=full_softmax", "objective.encode_catalog=true", "objective.chunk=7"]
    runs = one_and_two(
        shop, tiny_bert, tmp_path, *full, "trainer.epochs=1", "evaluation.test=false"
    )
    assert_equal_logs(runs, steps=2)
    assert_equal_weights(runs)


@pytest.mark.slow
def test_prompts_that_share_what_comes_before_the_item_are_the_same_on_two_ranks(
    shop, tiny_decoder, tmp_path
):
    asks = ["architecture=prompt", "objective=bce", "encoder.max_length=128", "tuning.layers=2"]
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=9", "evaluation.test=false"]
    runs = one_and_two(shop, tiny_decoder, tmp_path, *asks, *lists)
    assert_equal_logs(runs, steps=4)
    assert_equal_weights(runs)


@pytest.mark.slow
def test_texts_with_shrunk_rows_and_a_popularity_prior_are_the_same_on_two_ranks(
    shop, tiny_bert, tmp_path
):
    hybrid = ["architecture.item=text+id", "architecture.id_shrinkage=2"]
    runs = one_and_two(
        shop, tiny_bert, tmp_path, *hybrid, "architecture.popularity=true", "evaluation.test=false"
    )
    assert_equal_logs(runs, steps=4)
    assert_equal_weights(runs)


@pytest.mark.slow
@pytest.mark.parametrize("queries", ["random", "all"])
def test_two_ranks_train_from_the_same_changes(shop, tiny_bert, tmp_path, queries):
    changed = "data.augment={crop: .5, mask: .2, reorder: .5, substitute: .3, drop_words: .3}"
    more = [f"data.queries={queries}", changed, "evaluation.test=false"]
    runs = one_and_two(shop, tiny_bert, tmp_path, *more)
    assert_equal_logs(runs, steps=4)
    assert_equal_weights(runs)


@pytest.mark.slow
def test_two_ranks_that_accumulate_step_as_one_large_batch(shop, tiny_bert, tmp_path):
    """40 users in windows of 36 and 4: the last one is a single batch, half of it on each rank.

    Events weigh differently, so that what is summed over batches and ranks is no whole number.
    """
    header, *rows = (shop / "events.csv").read_text().splitlines()
    kinds = [f"{row},{'buy' if n % 3 else 'view'}" for n, row in enumerate(rows)]
    typed = tmp_path / "shop"
    typed.mkdir()
    (typed / "events.csv").write_text("\n".join([f"{header},event", *kinds]) + "\n")
    shutil.copy(shop / "items.csv", typed)
    more = ["objective=bce", "objective.negatives=3", "regularization.l2_sp=0.5"]
    more += ["data.event_types={view: 0.2, buy: 3}"]
    apart = (["trainer.batch_size=36"], ["trainer.batch_size=12", "trainer.accumulate=3"])
    more += ["evaluation.test=false", "optimizer.lr=0.0002"]
    runs = one_and_two(typed, tiny_bert, tmp_path / "runs", *more, apart=apart)
    assert_equal_logs(runs, steps=4)
    assert_equal_weights(runs, atol=1e-6)


def test_metrics_floors_and_cases_are_equal(runs):
    one, two = (json.loads((runs[n][0] / "result.json").read_text()) for n in (1, 2))
    assert one["test"]["cases"] == two["test"]["cases"] == 40
    for table in ("popularity", "tfidf", "zero-shot"):
        assert one["floors"][table] == pytest.approx(two["floors"][table], nan_ok=True)
    assert one["test"] == pytest.approx(two["test"], nan_ok=True)
    frames = [pl.read_parquet(runs[n][0] / "cases.parquet") for n in (1, 2)]
    assert frames[1]["case"].n_unique() == frames[1].height == 40
    assert frames[0].equals(frames[1])
    assert two["cost"]["devices"] == 2
    for cut, kinds in one["slices"].items():
        for kind, means in kinds.items():
            assert means == pytest.approx(two["slices"][cut][kind], nan_ok=True)
    measured = [{k: v for k, v in r["beyond"].items() if k != "seconds"} for r in (one, two)]
    assert measured[0] == pytest.approx(measured[1], nan_ok=True)


def test_only_the_first_rank_speaks(runs):
    for _, stdout in runs.values():
        assert stdout.count("result: ") == 1
        assert stdout.count("run: ") == 1


@pytest.mark.slow
def test_two_ranks_start_through_the_one_command_for_all(runs, shop, tiny_bert, tmp_path):
    """As its console script calls it: the program itself is no module that could start again."""
    script = (sys.executable, "-c", "from recsys.__main__ import main; main()", "fit")
    encoder = runs[2][0].parents[1] / "encoder"
    process = start(words(shop, encoder, tmp_path, 2), tmp_path / "cache", script)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert stdout.count("result: ") == 1
    (folder,) = (path.parent for path in tmp_path.glob("*/result.json"))
    assert_equal_weights({1: (folder, ""), 2: runs[2]}, atol=0)


def test_every_auto_is_decided_for_all_ranks(runs):
    text = (runs[2][0] / "config.yaml").read_text()
    assert "precision: fp32" in text
    assert "wandb: 'off'" in text


@pytest.mark.slow
def test_cost_is_that_of_all_ranks(shop, tiny_bert, tmp_path):
    """Against what the system says of the command and the rank that it has waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = start(
        words(shop, tiny_bert, tmp_path / "runs", 2, "trainer.epochs=20"), tmp_path / "cache"
    )
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (folder,) = (tmp_path / "runs").iterdir()
    cost = json.loads((folder / "result.json").read_text())["cost"]
    first = json.loads((folder / "start.json").read_text())
    other = json.loads((folder / "log" / "rank-1.json").read_text())
    # The system counts a child that was waited for: the first rank, which does not wait for others.
    said = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert 0.6 * said < first["cpu_seconds"] <= said + 0.05, "but for how an interpreter ends"
    assert other["cpu_seconds"] > 1
    assert cost["cpu_seconds"] == pytest.approx(first["cpu_seconds"] + other["cpu_seconds"])
    own = sum(each["cpu_seconds"] - each["beside_cpu_seconds"] for each in (first, other))
    assert cost["method_cpu_seconds"] == pytest.approx(own)
    assert 0 < own < cost["cpu_seconds"] - cost["startup_cpu_seconds"]
    assert cost["ranks"] == cost["devices"] == 2
    peaks = first["peak_mb"], other["peak_mb"]
    assert cost["anonymous_peak_mb_sampled"] == pytest.approx(sum(peaks))
    assert cost["largest_rank_peak_mb_sampled"] == max(peaks)
    assert min(peaks) > 0.5 * max(peaks)


@pytest.mark.slow
def test_a_signal_stops_all_ranks_and_both_go_on(shop, tiny_bert, tmp_path):
    more = ["trainer.epochs=3000", "trainer.batch_size=8", "checkpoint.every_minutes=0.001"]
    asked = words(shop, tiny_bert, tmp_path / "runs", 2, *more)
    process = start(asked, tmp_path / "cache")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "runs").glob("*/checkpoints/last.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"stopped by SIGTERM; go on with: python -m recsys.fit resume={folder}" in stderr
    # The other rank has left too: nobody holds the command's output open, and none writes any more.
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    spent = json.loads((folder / "log" / "rank-1.json").read_text())
    assert spent["cpu_seconds"] > spent["beside_cpu_seconds"] > 0
    (folder / "log" / "rank-1.json").write_text(json.dumps(spent | {"cpu_seconds": 5000.0}))
    again = start([f"resume={folder}"], tmp_path / "cache")
    deadline = time.monotonic() + 120
    while (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        <= kept["global_step"]
    ):
        assert again.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
    assert again.returncode == 128 + signal.SIGINT
    # The other rank goes on from its own cost, as the first one does.
    assert json.loads((folder / "log" / "rank-1.json").read_text())["cpu_seconds"] > 5000
