"""Weights spread over two processes train as those of one do: the real command, on gloo."""

import json
import shutil
import signal

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from tests.fit.test_ddp import (
    assert_equal_logs,
    assert_equal_weights,
    one_and_two,
    start,
    words,
)
from tests.fit.test_launch import finish, wait_for_state

FSDP = ["trainer.strategy=fsdp"]


def compare(shop, encoder, root, *more):
    return one_and_two(
        shop, encoder, root, "encoder.cache=false", "checkpoint.pick=last", *more, apart=((), FSDP)
    )


@pytest.mark.slow
def test_spread_lora_trains_as_one_process_does(shop, tiny_bert, tmp_path):
    """Clipped, and drawn to the start; micro-batches of few tokens, so that ranks have unequal."""
    more = ["encoder.chunk_tokens=24", "optimizer.clip=0.05", "regularization.l2_sp=0.5"]
    runs = compare(shop, tiny_bert, tmp_path, *more)
    assert_equal_logs(runs, steps=4)
    assert_equal_weights(runs)
    one, two = (json.loads((runs[n][0] / "result.json").read_text()) for n in (1, 2))
    assert one["test"] == pytest.approx(two["test"], nan_ok=True)
    assert not list((runs[2][0] / "checkpoints").glob("last*"))


# 21 cases in batches of 5: the first rank has three of them and the other one two.
UNEQUAL = ["evaluation.max_cases=21", "evaluation.batch_size=5", "encoder.chunk_tokens=24"]
LISTS = ["evaluation.protocol=candidates", "evaluation.candidates=12"]
RUNS = {
    "texts of users": [
        "tuning=full",
        "optimizer.encoder_lr=0.001",
        "architecture.user=text",
        "architecture.towers=separate",
        "encoder.pooling=attention",
        "encoder.checkpoint_chunks=true",
    ],
    # A softmax would leave the last bias without a gradient but rounding, and Adam steps by that.
    "pairs": ["architecture=cross_encoder", "objective=bce", *LISTS],
    "tokens": ["architecture=late_interaction", "objective=sampled_softmax", *LISTS],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_ranks_with_other_numbers_of_texts_and_batches_agree_on_passes(
    shop, tiny_bert, tmp_path, kind
):
    runs = compare(shop, tiny_bert, tmp_path, *UNEQUAL, *RUNS[kind])
    assert_equal_logs(runs, steps=4)
    assert_equal_weights(runs)
    one, two = (json.loads((runs[n][0] / "result.json").read_text()) for n in (1, 2))
    assert one["test"] == pytest.approx(two["test"], nan_ok=True)


@pytest.fixture
def tiny_llama(tiny_bert, tmp_path):
    """A random Llama that reads the words of the shop."""
    path = tmp_path / "llama"
    shutil.copytree(tiny_bert, path)
    size = json.loads((path / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    LlamaModel(config).save_pretrained(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("held", ["encoder.dtype=bf16", "trainer.precision=bf16-true"])
def test_weights_in_bf16_are_spread_too(shop, tiny_llama, tmp_path, held):
    """Rounded anew in each step: near what one process reaches, not the same."""
    runs = compare(shop, tiny_llama, tmp_path, "optimizer.lr=0.0002", held)
    one, two = (json.loads((runs[n][0] / "result.json").read_text()) for n in (1, 2))
    assert one["train"]["loss"] == pytest.approx(two["train"]["loss"], rel=0.02)


@pytest.mark.slow
def test_a_spread_decoder_trains_as_one_process_does(shop, tiny_llama, tmp_path):
    """In windows of three batches, the last of which is short."""
    more = ["encoder.pooling=last", "trainer.batch_size=13", "trainer.accumulate=3"]
    runs = compare(shop, tiny_llama, tmp_path, *UNEQUAL, *more)
    assert_equal_weights(runs)


@pytest.mark.slow
def test_a_spread_run_that_is_killed_goes_on_with_other_numbers_of_processes(
    shop, tiny_bert, tmp_path
):
    more = [*FSDP, "trainer.epochs=15", "checkpoint.every_minutes=0", "encoder.cache=false"]
    more += ["regularization.dropout=0", "tuning=full", "optimizer.encoder_lr=0.001"]
    asked, cache = words(shop, tiny_bert, tmp_path / "runs", 2, *more), tmp_path / "cache"
    first = start(asked, cache)
    step = wait_for_state(tmp_path / "runs", [first])
    first.send_signal(signal.SIGTERM)
    ((code, _, stderr),) = finish(first)
    assert code == 128 + signal.SIGTERM, stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert len(list((run / "checkpoints").glob("last.*-of-2.ckpt"))) == 2
    second = start([f"resume={run}", "trainer.devices=3"], cache)
    wait_for_state(tmp_path / "runs", [second], above=step + 2)
    second.send_signal(signal.SIGKILL)
    finish(second)
    alone = start(words(shop, tiny_bert, tmp_path / "alone", 1, *more[1:]), cache)
    third = start([f"resume={run}", "trainer.devices=1"], cache)
    (code, _, stderr), single = finish(third, alone)
    assert (code, single[0]) == (0, 0), stderr + single[2]
    assert "note: 3 processes saved the state, and 1 go on from it" in stderr
    (one,) = (tmp_path / "alone").iterdir()
    assert_equal_logs({1: (one, ""), 2: (run, "")}, steps=30)
    assert_equal_weights({1: (one, ""), 2: (run, "")})
    assert not list((run / "checkpoints").glob("last*"))


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["tuning=frozen"], "tuning=frozen trains nothing of the encoder"),
        (["architecture=prompt", *LISTS], "architecture=prompt runs its model in a way"),
        (["trainer.precision=fp16-mixed"], "trainer.precision=fp16-mixed: its loss scale"),
        (["encoder.quantize=int8"], "encoder.quantize=int8: codes are no weights"),
        (["trainer.encoder_updates=half_epoch"], "trainer.encoder_updates=half_epoch"),
        (["encoder.compile=on"], "encoder.compile=on"),
        (["optimizer.kind=adamw_8bit"], "optimizer.kind=adamw_8bit"),
        (["profile=true"], "profile=true"),
        (["regularization.cold_distillation=0.1"], "cold_distillation=0.1"),
        (
            ["objective=full_softmax", "objective.encode_catalog=true"],
            "objective.encode_catalog=true",
        ),
        (["architecture.item=id", "tuning=frozen"], "reads no texts"),
    ],
)
def test_what_spread_weights_do_not_go_with_is_told_before_anything_is_loaded(
    shop_words, tmp_path, capsys, more, part
):
    from recsys.fit.__main__ import main

    assert main([*shop_words, "tuning=lora", *FSDP, *more, "encoder.model=nowhere"]) == 2
    line = capsys.readouterr().err
    assert part in line
    assert "trainer.strategy=ddp" in line
    assert not (tmp_path / "runs").exists()


def test_what_spread_weights_cannot_have_is_turned_off(shop_words, capsys):
    from recsys.config.compose import compose
    from recsys.fit.command import resolve

    run = resolve(compose([*shop_words, "tuning=lora", *FSDP]))
    assert (run.encoder.cache, run.encoder.compile) == (False, "off")
    assert "note: encoder.cache is off with trainer.strategy=fsdp" in capsys.readouterr().err


@pytest.mark.slow
def test_four_processes_train_as_one(shop, tiny_bert, tmp_path):
    """Of the last batch of an epoch, which holds one user, three of them have nothing."""
    path = tmp_path / "encoder"
    shutil.copytree(tiny_bert, path)
    config = json.loads((path / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (path / "config.json").write_text(json.dumps(config))
    more, cache = ["encoder.cache=false", "checkpoint.pick=last"], tmp_path / "cache"
    kinds = {"one": (1, []), "ddp": (4, []), "fsdp": (4, FSDP)}
    runs = {}
    for name, (devices, own) in kinds.items():
        asked = words(shop, path, tmp_path / name, devices, *more, *own)
        ((code, _, stderr),) = finish(start(asked, cache))
        assert code == 0, stderr
        (runs[name],) = (tmp_path / name).iterdir()
    for name in ("ddp", "fsdp"):
        both = {1: (runs["one"], ""), 2: (runs[name], "")}
        assert_equal_logs(both, steps=4)
        assert_equal_weights(both)
