"""Index, graph and card say what the run says, as FAISS, onnxruntime and a hub read them."""

import json

import faiss
import numpy as np
import onnxruntime
import polars as pl
import pytest
from huggingface_hub import HfApi, ModelCard
from tokenizers import Tokenizer

from recsys.export.__main__ import main as export
from recsys.fit.__main__ import main as fit
from recsys.trained.exports import faiss_index, formats
from recsys.trained.exports.opened import open_for_export
from recsys.trained.exports.quality import measure_ranking
from recsys.trained.run import load

ASKED = "blue mirror"


@pytest.fixture(scope="module")
def run(shop_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    words = ["tuning=adapter", "architecture.popularity=true", "encoder.pooling=attention"]
    words += ["optimizer.head_lr=0.05", "checkpoint.pick=last", "encoder.query_prompt='red '"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        assert fit([*shop_base, *words, "trainer.epochs=1", f"output={root / 'runs'}"]) == 0
        (folder,) = (root / "runs").iterdir()
        yield load(folder)


def export_folder(run, tmp_path, format, *words):
    folder = tmp_path / format
    assert export([f"run={run.folder}", f"to={folder}", f"format={format}", *words]) == 0
    return folder


def encode(folder, texts, output):
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    read = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(texts)
    inputs = {
        "input_ids": np.array([text.ids for text in read]),
        "attention_mask": np.array([text.attention_mask for text in read]),
    }
    return session.run([output], inputs)[0]


def test_the_graph_and_the_index_rank_as_the_run_does(run, tmp_path, capsys):
    """Also what no folder of sentence-transformers holds: adapters, a learned pooling, a prior."""
    graph, index = (export_folder(run, tmp_path, name) for name in ("onnx", "faiss"))
    said = capsys.readouterr().out
    assert "append a 1 to the vector of a query" in said
    assert "model_int8.onnx" in said
    about = json.loads((graph / "onnx.json").read_text())
    assert about["outputs"] == ["item_vector", "query_vector"]
    assert 0 < about["int8_overlap@10"] <= 1
    full, small = about["test"]["fp32"], about["test"]["int8"]
    for name in ("ndcg@10", "warm/ndcg@10"):
        assert full[name] == pytest.approx(run.metrics[name], abs=1e-6)
        assert 0 < small[name] <= 1
        assert f"{name} {100 * full[name]:.2f} -> {100 * small[name]:.2f}" in said
    items = pl.read_parquet(index / "items.parquet")
    found = faiss.read_index(str(index / "index.faiss"))
    rows = found.reconstruct_n(0, found.ntotal)
    for texts in (items["title"].to_list(), items["title"].to_list()[:1], ["red " * 60, "blue"]):
        own = encode(graph, texts, "item_vector")
        if len(texts) != 2:
            np.testing.assert_allclose(own, rows[: len(texts), :-1], atol=1e-4)
    (query,) = encode(graph, [about["prompts"]["query"] + ASKED], "query_vector")
    scores, best = found.search(np.append(query, 1)[None].astype(np.float32), 5)
    own = run.recommend(texts=[ASKED], k=5)
    assert items["item"].gather(best[0]).to_list() == own["item"].to_list()
    np.testing.assert_allclose(about["scale"] * scores[0], own["score"], rtol=1e-4)


def test_other_item_vectors_have_other_metrics(run):
    opened = open_for_export(run)
    own = measure_ranking(opened, opened.vectors)
    assert own["ndcg@10"] == pytest.approx(run.metrics["ndcg@10"], abs=1e-6)
    mixed = np.roll(opened.vectors, 1, axis=0)
    assert measure_ranking(opened, mixed)["ndcg@10"] != own["ndcg@10"]
    assert measure_ranking(opened, opened.vectors) == own, "nothing of it stays"


def test_a_large_catalog_has_a_graph_whose_recall_is_said(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(faiss_index, "EXACT_BELOW", 20)
    folder = export_folder(run, tmp_path, "faiss")
    about = json.loads((folder / "index.json").read_text())
    assert (about["index"], about["recall@10"]) == ("hnsw", 1.0)  # of 30 items none is missed
    assert "recall@10 against exact search 100.00%" in capsys.readouterr().out


def test_the_card_is_what_a_hub_reads(run, tmp_path):
    card = ModelCard.load(export_folder(run, tmp_path, "card") / "README.md")
    figures = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert figures["ndcg@10"] == pytest.approx(run.metrics["ndcg@10"], abs=1e-6)
    for floor in run.result["floors"]:
        assert f"| {floor} |" in card.text
    assert "95 % interval" in card.text
    assert "No licence is set here" in card.text
    whole = ModelCard.load(export_folder(run, tmp_path, "vectors") / "README.md")
    assert "vectors.npy" in whole.text


@pytest.mark.slow
def test_a_card_of_several_seeds_has_their_mean_and_spread(shop_base, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = ["tuning=frozen", "trainer.epochs=1", f"output={tmp_path / 'runs'}"]
    assert fit([*shop_base, *words, "seeds=2", "optimizer.head_lr=0.05"]) == 0
    runs = [load(each.parent) for each in sorted((tmp_path / "runs").glob("*/*/result.json"))]
    text = ModelCard.load(export_folder(runs[0], tmp_path, "card") / "README.md").text
    (row,) = (line for line in text.splitlines() if "standard deviation of seeds 0, 1 |" in line)
    (head,) = (line for line in text.splitlines() if line.startswith("| in percent"))
    cell = dict(zip(head.split(" | "), row.split(" | "), strict=True))["ndcg@10"]
    values = 100 * np.array([each.metrics["ndcg@10"] for each in runs])
    assert cell == f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"
    assert str(tmp_path) not in text, "no folder of this machine is named"


def test_nothing_is_sent_unless_asked_for(run, tmp_path, monkeypatch, capsys):
    sent = []
    monkeypatch.setattr(
        HfApi, "create_repo", lambda self, name, **how: sent.append((name, how["private"])) or "url"
    )
    monkeypatch.setattr(
        HfApi, "upload_folder", lambda self, **how: sent.append(how["folder_path"].name)
    )
    export_folder(run, tmp_path, "card")
    assert sent == []
    (tmp_path / "card").rename(tmp_path / "before")
    export_folder(run, tmp_path, "card", "push=me/model")
    assert sent == [("me/model", True), "card"]
    assert "sent: url" in capsys.readouterr().out

    def fail(self, name, **how):
        raise OSError("no route to the hub")

    monkeypatch.setattr(HfApi, "create_repo", fail)
    words = [f"run={run.folder}", f"to={tmp_path / 'other'}", "format=card"]
    assert export([*words, "push=me/model"]) == 5
    assert "is written and was not sent (no route to the hub)" in capsys.readouterr().err
    assert (tmp_path / "other/README.md").is_file()
    words[1] = f"to={tmp_path / 'third'}"
    assert export([*words, "push=model"]) == 2
    assert "is no name on a hub" in capsys.readouterr().err


def test_a_package_that_is_missing_is_named_with_its_extra(run, tmp_path, monkeypatch, capsys):
    find = formats.importlib.util.find_spec
    monkeypatch.setattr(
        formats.importlib.util,
        "find_spec",
        lambda name, *of: None if name == "onnx" else find(name, *of),
    )
    assert export([f"run={run.folder}", f"to={tmp_path / 'x'}", "format=onnx"]) == 2
    assert "pip install 'recsys[export]'" in capsys.readouterr().err
