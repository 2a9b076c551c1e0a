from __future__ import annotations

import json
import multiprocessing as mp
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2Model

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.catalog import Catalog
from recsys.encoders.cache import common, frozen_layers, states
from recsys.encoders.cache.frozen_layers import FrozenLayerCache
from recsys.encoders.cut import ModelSplitError, SplitModel
from recsys.encoders.encoder import Encoder
from recsys.errors import DataError
from recsys.runtime.store import FILES_FILE, Store, list_files
from tests.encoders.families import FAMILIES, SPECIALS, deberta, electra, mpnet, xlnet

ALL = {
    **FAMILIES,
    "mpnet": mpnet,
    "electra": electra,
    "deberta": deberta,
    "gpt2": lambda: GPT2Model(
        GPT2Config(
            vocab_size=50,
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=40,
            bos_token_id=1,
            eos_token_id=2,
        )
    ),
}


def tiny(family: str = "bert", lowest: int = 2) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(ALL[family](), SPECIALS, "mean", 20, 60).eval()
    encoder.lowest_trained = lowest
    for name, parameter in encoder.model.named_parameters():
        parameter.requires_grad_(f".{lowest}." in name)
    return encoder


def catalog(root: Path, items: int = 40) -> Catalog:
    def tokenize(texts: list[str]) -> list[list[int]]:
        return [[3 + (7 * int(t) + i) % 47 for i in range(int(t) % 23)] for t in texts]

    return Catalog.from_texts([str(i) for i in range(items)], tokenize, "t", Store(root), 64)


def cached(root: Path, encoder: Encoder | None = None, **options) -> FrozenLayerCache:
    return FrozenLayerCache.build(encoder or tiny(), catalog(root), Store(root), **options)


ROWS = torch.tensor([5, 39, 0, 22, 22, 17])


@pytest.mark.parametrize("family", ALL)
def test_vectors_and_gradients_equal_those_of_the_whole_model(family: str, tmp_path: Path) -> None:
    encoder = tiny(family)
    cache = cached(tmp_path, encoder)
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    grads = []
    for vectors in (encoder(catalog(tmp_path).gather_tokens(ROWS)), cache.compute_vectors(ROWS)):
        encoder.zero_grad()
        (vectors * weight).sum().backward()
        named = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
        grads.append((vectors.detach(), named))
    torch.testing.assert_close(grads[1][0], grads[0][0], rtol=1e-5, atol=1e-6)
    assert grads[0][1].keys() == grads[1][1].keys()
    assert grads[0][1]
    for name, grad in grads[0][1].items():
        torch.testing.assert_close(grads[1][1][name], grad, rtol=1e-4, atol=1e-5)


def test_no_rows_have_no_vectors(tmp_path: Path) -> None:
    assert cached(tmp_path).compute_vectors(torch.empty(0, dtype=torch.long)).shape == (0, 32)


def test_states_in_memory_or_gathered_in_small_blocks_are_the_same(tmp_path, monkeypatch) -> None:
    disk = cached(tmp_path, place="disk")
    memory = cached(tmp_path, place="memory")
    auto = cached(tmp_path)
    want = disk.compute_vectors(ROWS)
    assert torch.equal(memory.compute_vectors(ROWS), want)
    cpu = torch.device("cpu")
    assert disk.states.place_on(cpu) is disk.states.mapped
    assert (
        auto.states.place_on(cpu) is auto.states.mapped
    )  # the system keeps files in memory by itself
    held = memory.states.place_on(cpu)
    assert held.data_ptr() != memory.states.mapped.data_ptr()
    assert memory.states.place_on(cpu) is held
    monkeypatch.setattr(frozen_layers, "_GATHER", 32 * 20)
    assert torch.equal(disk.compute_vectors(ROWS), want)


def test_on_a_gpu_the_states_are_held_where_they_fit(tmp_path, monkeypatch) -> None:
    made = cached(tmp_path).states
    moved = []
    monkeypatch.setattr(torch.Tensor, "to", lambda x, device, copy: moved.append(device) or x)
    for free, expected in ((made.mapped.nbytes * 4, 1), (made.mapped.nbytes * 3, 0)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        moved.clear()
        states.CachedStates(made.folder, "auto").place_on(torch.device("cuda", 0))
        assert len(moved) == expected
        moved.clear()
        states.CachedStates(made.folder, "disk").place_on(torch.device("cuda", 0))
        assert not moved


def test_half_precision_is_half_the_size_and_its_error_is_told(tmp_path: Path) -> None:
    full, half = cached(tmp_path), cached(tmp_path, dtype="fp16")
    assert half.states.folder != full.states.folder
    assert half.report.gb == full.report.gb / 2
    assert half.report.gb == pytest.approx(
        FrozenLayerCache.compute_size_gb(tiny(), catalog(tmp_path), "fp16")
    )
    assert 0 <= full.report.max_error < 1e-6
    assert full.report.vector_error < 1e-5
    assert 2e-5 < half.report.mean_error <= half.report.max_error < 2**-11
    assert 1e-6 < half.report.vector_error < 2e-3
    want = full.compute_vectors(ROWS)
    error = common.compute_relative_errors(half.compute_vectors(ROWS).detach(), want.detach()).max()
    assert 1e-6 < float(error) < 2e-3
    assert half.compute_vectors(ROWS).dtype == torch.float32
    assert "fp16" in half.report.describe()


def test_states_beyond_half_precision_are_refused_with_the_remedy(tmp_path: Path) -> None:
    encoder = tiny()
    with torch.no_grad():
        encoder.model.encoder.layer[1].output.LayerNorm.weight.mul_(1e6)
    with pytest.raises(DataError, match=r"65504; set encoder\.cache_dtype=fp32"):
        cached(tmp_path, encoder, dtype="fp16")
    assert cached(tmp_path, encoder).report.dtype == "fp32"
    assert not list((tmp_path / "prefix").glob(".*"))


def test_a_later_start_finds_the_states_and_what_they_cost(tmp_path: Path) -> None:
    first, second = cached(tmp_path), cached(tmp_path)
    assert first.report.built
    assert not second.report.built
    assert second.report.build_seconds == first.report.build_seconds > 0
    assert second.report.depth == 2
    changed = tiny()
    with torch.no_grad():
        changed.model.encoder.layer[2].output.dense.weight.add_(1)  # above: the same states
    assert not cached(tmp_path, changed).report.built
    with torch.no_grad():
        changed.model.encoder.layer[1].output.dense.weight.add_(1)
    assert cached(tmp_path, changed).report.built


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_damaged_states_are_refused(tmp_path: Path, dtype: common.Dtype) -> None:
    folder = cached(tmp_path, dtype=dtype).states.folder
    values = np.load(folder / "states.npy")
    np.save(folder / "states.npy", np.roll(values, 1, axis=1))
    (folder / FILES_FILE).write_text(json.dumps(list_files(folder)))  # as far into a large file
    with pytest.raises(DataError, match=r"kept states differ.*remove the folder"):
        cached(tmp_path, dtype=dtype)


def test_dropout_and_mode_are_as_before(tmp_path: Path) -> None:
    encoder = tiny().train()
    random = torch.get_rng_state()
    cached(tmp_path, encoder)
    assert encoder.training
    assert encoder.model.encoder.layer[2].training
    assert not encoder.model.encoder.layer[1].training
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("model", "lowest", "words"),
    [
        (xlnet, 2, r"cannot be cut between two layers \(they pass on \(6, 1, 32\)"),
        (deberta, 1, "cut between two layers, gives other states"),
    ],
    ids=["tokens first", "a convolution beside the first layer"],
)
def test_a_model_that_cannot_be_cut_is_told_before_anything_is_built(
    tmp_path, model, lowest, words
) -> None:
    encoder = Encoder(model(), SPECIALS, "mean", 20, 60)
    encoder.lowest_trained = lowest
    with pytest.raises(ModelSplitError, match=words):
        cached(tmp_path, encoder)
    assert not (tmp_path / "prefix").exists()


def test_a_cut_that_gives_other_numbers_is_not_used(tmp_path, monkeypatch) -> None:
    above = SplitModel.run_above
    monkeypatch.setattr(SplitModel, "run_above", lambda self, s, mask: 1.1 * above(self, s, mask))
    with pytest.raises(ModelSplitError, match="other states"):
        cached(tmp_path)


def test_a_run_with_such_a_model_says_so_and_goes_on(
    shop_words, tiny_bert, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    xlnet().save_pretrained(tmp_path / "xlnet")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "xlnet")
    words = [*shop_words, f"encoder.model={tmp_path / 'xlnet'}", "tuning.layers=1"]
    made = build.assemble(compose(words))
    assert made.recommender.encoding.prefix is None
    told = [line for line in capsys.readouterr().err.splitlines() if "XLNetModel" in line]
    assert len(told) == 1
    assert "computed in every step" in told[0]
    batch = next(iter(made.datamodule.train_dataloader()))
    assert made.recommender(batch).items.isfinite().all()


def test_the_bar_is_for_terminals_and_the_first_rank(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    cached(tmp_path / "a", show=True)
    assert capsys.readouterr() == ("", "tokenising 40 texts\n")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    cached(tmp_path / "b", show=False)
    assert capsys.readouterr() == ("", "tokenising 40 texts\n")
    cached(tmp_path / "c", show=True)
    out, err = capsys.readouterr()
    assert not out
    assert "states below the trained layers" in err


def _slow(root: str, barrier: Barrier, out: mp.SimpleQueue[tuple[bool, list[float]]]) -> None:
    torch.set_num_threads(1)
    write = states.cast_states

    def later(values: torch.Tensor, dtype: common.Dtype) -> torch.Tensor:
        time.sleep(0.01)
        return write(values, dtype)

    frozen_layers.cast_states = later  # in this process only
    barrier.wait(60)
    cache = cached(Path(root))
    out.put((cache.report.built, cache.compute_vectors(ROWS).flatten().tolist()))


def test_two_processes_at_once_build_once_and_have_the_same(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    barrier, out = context.Barrier(2), context.SimpleQueue()
    catalog(tmp_path)
    workers = [context.Process(target=_slow, args=(str(tmp_path), barrier, out)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = sorted(out.get() for _ in workers)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert [built for built, _ in found] == [False, True]
    assert found[0][1] == found[1][1]
    assert [p.name[0] != "." for p in (tmp_path / "prefix").iterdir()] == [True]


def _stuck(root: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    write, done = states.cast_states, []

    def later(values: torch.Tensor, dtype: common.Dtype) -> torch.Tensor:
        done.append(1)
        if len(done) == 20:
            pipe.send("half")
            time.sleep(60)
        return write(values, dtype)

    frozen_layers.cast_states = later  # in this process only
    cached(Path(root))


def test_a_builder_killed_in_the_middle_leaves_nothing_that_counts(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    here, there = context.Pipe()
    worker = context.Process(target=_stuck, args=(str(tmp_path), there))
    worker.start()
    assert here.recv() == "half"
    worker.kill()
    worker.join(10)
    (left,) = (tmp_path / "prefix").glob(".*.tmp")
    assert (left / "states.npy").is_file()
    cache = cached(tmp_path)
    assert cache.report.built
    encoder = tiny()
    want = encoder(catalog(tmp_path).gather_tokens(ROWS))
    torch.testing.assert_close(cache.compute_vectors(ROWS), want, rtol=1e-5, atol=1e-6)
    (only,) = (tmp_path / "prefix").iterdir()
    assert sorted(p.name for p in only.iterdir()) == [
        "build.json",
        "built.json",
        "files.json",
        "key.json",
        "offsets.npy",
        "states.npy",
    ]
    assert json.loads((only / "key.json").read_text())["depth"] == 2
