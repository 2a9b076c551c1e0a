"""What a run leaves gives the run's own vectors and rankings, read by none of our code."""

import json
import re

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from recsys.config.compose import compose, format_config
from recsys.errors import ConfigError, DataError
from recsys.export.__main__ import main as export
from recsys.fit.__main__ import main as fit
from recsys.trained.run import load

HEADS = ("optimizer.head_lr=0.05", "checkpoint.pick=last", "trainer.epochs=1")


@pytest.fixture
def trained(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))

    def run(*words):
        before = set((tmp_path / "runs").glob("*"))
        assert fit([*shop_words, *HEADS, *words]) == 0
        (folder,) = set((tmp_path / "runs").iterdir()) - before
        return load(folder)

    return run


def apply_modules(folder, x, route):
    """What stands behind the pooling, as sentence-transformers reads it."""

    def apply(kind, place, x):
        if kind == "Normalize":
            return torch.nn.functional.normalize(x, dim=-1)
        about = json.loads((place / "config.json").read_text())
        assert about["activation_function"] == "torch.nn.modules.linear.Identity"
        state = load_file(place / "model.safetensors")
        return torch.nn.functional.linear(x, state["linear.weight"], state.get("linear.bias"))

    for module in json.loads((folder / "modules.json").read_text())[2:]:
        kind, place = module["type"].rpartition(".")[2], folder / module["path"]
        assert module["type"].startswith("sentence_transformers.models.")
        if kind != "Router":
            x = apply(kind, place, x)
            continue
        about = json.loads((place / "router_config.json").read_text())
        assert about["parameters"]["default_route"] == "document"
        for name in about["structure"][route]:
            x = apply(about["types"][name].rpartition(".")[2], place / name, x)
    return x


@torch.no_grad()
def encode(folder, texts, route="document"):
    """Mean-pooled vectors by transformers and the files alone."""
    about = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert json.loads((folder / "1_Pooling/config.json").read_text())["pooling_mode_mean_tokens"]
    length = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    read = tokenizer(
        [about["prompts"][route] + text for text in texts],
        padding=True,
        truncation=True,
        max_length=length,
        return_tensors="pt",
    )
    states = model.eval()(**read).last_hidden_state
    mask = read["attention_mask"][..., None].float()
    return apply_modules(folder, (states * mask).sum(1) / mask.sum(1), route).numpy()


def export_folder(run, tmp_path, format, *words):
    folder = tmp_path / f"out-{format}"
    assert export([f"run={run.folder}", f"to={folder}", f"format={format}", *words]) == 0
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("tuning=lora",),
        ("tuning=lora", "encoder.item_prompt='red '", "encoder.query_prompt='blue '"),
        ("tuning=full", "architecture.user=text", "data.max_tokens=1"),
        ("tuning=lora", "architecture.score=dot", "objective=bpr"),
        ("tuning=lora", "architecture.towers=separate"),
        ("tuning=frozen", "architecture.heads=false"),
    ],
    ids=" ".join,
)
def test_the_folder_has_the_vectors_of_items_and_of_texts(trained, tmp_path, words):
    run = trained(*words)
    folder = export_folder(run, tmp_path, "sentence_transformers")
    table = pl.read_parquet(export_folder(run, tmp_path, "vectors") / "vectors.parquet")
    vectors, titles = table["vector"].to_numpy(), table["title"].to_list()
    np.testing.assert_allclose(encode(folder, titles), vectors, atol=1e-4)
    kinds = [
        m["type"].rpartition(".")[2] for m in json.loads((folder / "modules.json").read_text())
    ]
    separate = "architecture.towers=separate" in words
    assert ("Router" in kinds) is not (separate or "tuning=frozen" in words)
    if "data.max_tokens=1" in words:
        return  # a free text is cut later than an item's, which one length cannot say
    asked = "blue mirror"
    query = encode(folder / "query" if separate else folder, [asked], "query")
    scale = json.loads((tmp_path / "out-vectors/vectors.json").read_text())["scale"]
    scores = pl.Series("score", scale * (vectors @ query[0]))
    best = table.with_columns(scores).sort("score", descending=True).head(5)
    own = run.recommend(texts=[asked], k=5)
    np.testing.assert_allclose(best["score"], own["score"], rtol=1e-4)
    assert best["item"].to_list() == own["item"].to_list()


@torch.no_grad()
def encode_tokens(folder, text, route):
    """Token vectors by transformers and the files alone, as MultiVectorEncoder makes them."""
    about = json.loads((folder / "config_sentence_transformers.json").read_text())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    read = tokenizer([about["prompts"][route] + text], truncation=True, return_tensors="pt")
    x, ids = model.eval()(**read).last_hidden_state[0], read["input_ids"][0]
    _, *modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        place = folder / module["path"]
        if module["type"].endswith(".MultiVectorMask"):
            mask = json.loads((place / "config.json").read_text())
            assert mask["skiplist_tasks"] == ["query", "document"]
            skipped = torch.tensor(tokenizer.convert_tokens_to_ids(mask["skiplist_words"]))
            return x[~torch.isin(ids, skipped)]
        names, steps = {module["path"]: module["type"]}, [module["path"]]
        if module["type"].endswith(".Router"):
            router = json.loads((place / "router_config.json").read_text())
            names, steps = router["types"], router["structure"][route]
        for name in steps:
            inner = folder / name if name == module["path"] else place / name
            settings = json.loads((inner / "config.json").read_text())
            assert settings["module_input_name"] == "token_embeddings"
            if names[name].endswith(".Normalize"):
                x = torch.nn.functional.normalize(x, dim=-1)
            else:
                x = x @ load_file(inner / "model.safetensors")["linear.weight"].T
    raise AssertionError("the mask is missing")


@pytest.mark.parametrize(
    "words",
    [
        ("tuning=lora", "architecture.width=16", "encoder.query_prompt='blue '"),
        ("tuning=frozen", "architecture.heads=false", "architecture.special_tokens=true"),
    ],
    ids=" ".join,
)
@torch.no_grad()
def test_the_folder_of_late_interaction_has_its_scores(trained, tmp_path, words, capsys):
    run = trained("architecture=late_interaction", "objective=bce", *words)
    folder = export_folder(run, tmp_path, "sentence_transformers")
    said = capsys.readouterr().out
    assert "MultiVectorEncoder, which version 5 has not" in said
    assert "MultiVectorEncoder(" in (folder / "README.md").read_text()
    scale = float(re.search(r"is ([\d.e+-]+) times the similarity", said)[1])
    own = run.recommend(texts=["blue mirror"], k=5)
    asking = encode_tokens(folder, "blue mirror", "query")
    for title, score in own.select("title", "score").iter_rows():
        products = asking @ encode_tokens(folder, title, "document").T
        assert float(scale * products.max(1).values.mean()) == pytest.approx(score, abs=1e-4)
    for format in ("vectors", "onnx"):
        assert export([f"run={run.folder}", f"to={tmp_path / 'x'}", f"format={format}"]) == 2
        assert "no vector for each item" in capsys.readouterr().err


def test_vectors_come_with_ids_and_with_what_the_score_adds(trained, tmp_path, capsys):
    run = trained("tuning=frozen", "architecture.item=text+id", "architecture.popularity=true")
    folder = export_folder(run, tmp_path, "vectors")
    table = pl.read_parquet(folder / "vectors.parquet")
    array = np.load(folder / "vectors.npy")
    assert np.array_equal(array, table["vector"].to_numpy())
    about = json.loads((folder / "vectors.json").read_text())
    assert (about["items"], about["width"], about["unit_length"]) == (30, 32, True)
    assert table["item"].to_list() == [f"0{n:02d}" for n in range(30)]
    # A history of one item is that item, but for the head of users.
    assert "adds what is popular" in capsys.readouterr().out
    assert table["popularity"].n_unique() > 1
    code = export([f"run={run.folder}", f"to={tmp_path / 'x'}", "format=sentence_transformers"])
    assert (code, (tmp_path / "x").exists()) == (2, False)
    assert "learned beside their texts" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tuning=adapter",), "cannot be folded into the weights"),
        (("encoder.pooling=attention",), "encoder.pooling=attention has a learned query"),
    ],
    ids=" ".join,
)
def test_what_no_such_folder_can_hold_is_refused(trained, tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        trained(*words).export(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def leave(place, *words):
    """What a finished run has of its configuration."""
    place.mkdir()
    (place / "config.yaml").write_text(format_config(compose(words)))
    (place / "result.json").write_text('{"test": {}, "data": {"fingerprint": "0"}}')
    return place


def test_a_mistake_is_told_before_data_is_read(tmp_path, capsys):
    knn = leave(tmp_path / "knn", "architecture=item_knn")
    ids = leave(tmp_path / "ids", "architecture.item=id", "tuning=frozen")
    two = leave(tmp_path / "two")
    (tmp_path / "there").mkdir()
    new = f"to={tmp_path / 'new'}"
    for words, said in (
        ([f"run={two}", new], "format= is missing"),
        ([f"run={two}", new, "format=vektors"], "Did you mean 'vectors'?"),
        ([f"run={two}", new, "format=vectors", "too=x"], "Did you mean 'to'?"),
        ([f"run={two}", f"to={tmp_path / 'there'}", "format=vectors"], "exists already"),
        ([f"run={knn}", new, "format=vectors"], "item_knn has no vector for each item"),
        ([f"run={ids}", new, "format=sentence_transformers"], "use format=vectors"),
    ):
        assert export(words) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="exists already"):
        load(two).export(tmp_path / "there", "vectors")
