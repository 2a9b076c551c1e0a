"""Folders of sentence-transformers are followed: its own vectors are the oracle."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.encoders.pretrained.load import PretrainedEncoder, load_pretrained
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import recommend
from recsys.types import Ragged

pytest.importorskip("sentence_transformers")

TEXTS = ["red lamp", "blue chair table", "green", "white shelf black mirror lamp red red", ""]
PROMPTS = {"query": "table red ", "document": "chair "}


def made(tiny_bert: Path, folder: Path, *behind: nn.Module, modes="mean", **how) -> Path:
    """A folder as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    include = how.pop("include_prompt", True)
    reads = Transformer(str(tiny_bert), max_seq_length=how.pop("longest", None))
    pools = Pooling(32, pooling_mode=modes, include_prompt=include)
    torch.manual_seed(1)
    SentenceTransformer(modules=[reads, pools, *behind], device="cpu", **how).save(
        str(folder), create_model_card=False
    )
    return folder


def dense(width: int = 32, out: int = 12, **how) -> nn.Module:
    from sentence_transformers.models import Dense

    torch.manual_seed(2)
    return Dense(width, out, **how)


def unit() -> nn.Module:
    from sentence_transformers.models import Normalize

    return Normalize()


@torch.no_grad()
def vectors(loaded: PretrainedEncoder, texts: Sequence[str], query: bool) -> torch.Tensor:
    own = loaded.following
    prompt = own.query_prompt if query else own.item_prompt
    ids = loaded.tokenize([prompt + text for text in texts])
    found = loaded.encoder.eval()(
        Ragged.from_sequences([torch.tensor(i, dtype=torch.long) for i in ids]), query
    )
    return F.normalize(found, dim=-1) if loaded.encoder.unit else found


def assert_equal(folder: Path) -> PretrainedEncoder:
    from sentence_transformers import SentenceTransformer

    oracle = SentenceTransformer(str(folder), device="cpu")
    loaded = load_pretrained(str(folder), pooling="auto", max_length=None)
    for query, encode in ((False, oracle.encode_document), (True, oracle.encode_query)):
        want = torch.tensor(encode(TEXTS))
        torch.testing.assert_close(vectors(loaded, TEXTS, query), want, atol=1e-6, rtol=1e-5)
    return loaded


@pytest.mark.parametrize(
    "modes",
    [
        "mean",
        "cls",
        "max",
        "mean_sqrt_len_tokens",
        "weightedmean",
        "lasttoken",
        ("lasttoken", "mean"),
    ],
    ids=str,
)
def test_poolings_are_those_of_the_folder(modes, tiny_bert, tmp_path):
    loaded = assert_equal(made(tiny_bert, tmp_path / "m", modes=modes))
    assert loaded.encoder.vector_width == (64 if isinstance(modes, tuple) else 32)
    assert "pooling" in loaded.line


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        (lambda: [dense()], "mean pooling, Dense 32->12 tanh,"),
        (lambda: [dense(activation_function=nn.Identity(), bias=False), unit()], "unit length"),
        (lambda: [dense(out=12, use_residual=True), dense(12, 12, use_residual=True)], "12->12"),
        (lambda: [dense(activation_function=nn.GELU())], "Dense 32->12 gelu"),
        (lambda: [unit()], "mean pooling, unit length, max 64 tokens"),
        (lambda: [unit(), dense()], "mean pooling, unit length, Dense 32->12 tanh, max"),
        (lambda: [dense(), unit(), dense(12, 6), unit()], "tanh, unit length, Dense 12->6 tanh, u"),
    ],
)
def test_what_stands_behind_the_pooling_is_followed(behind, words, tiny_bert, tmp_path):
    assert words in assert_equal(made(tiny_bert, tmp_path / "m", *behind())).line


@pytest.mark.parametrize("modes", ["mean", "cls", "max", "weightedmean", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("include", [True, False])
def test_prompts_stand_before_texts_and_may_be_left_out_of_the_pooling(
    modes, include, tiny_bert, tmp_path
):
    folder = made(
        tiny_bert, tmp_path / "m", modes=modes, include_prompt=include, prompts=PROMPTS, longest=16
    )
    loaded = assert_equal(folder)
    assert 'prompts query "table red ", item "chair "' in loaded.line
    assert ("leaves out" in loaded.line) is not include
    assert loaded.encoder.skips == ((0, 0) if include else (2, 3))


def test_a_long_text_is_cut_where_the_folder_cuts_it(tiny_bert, tmp_path):
    loaded = assert_equal(made(tiny_bert, tmp_path / "m", longest=5))
    assert loaded.encoder.max_length == 5


def test_lower_case_and_pickled_dense_maps_and_old_names_of_poolings(tiny_bert, tmp_path):
    folder = made(tiny_bert, tmp_path / "m", dense(), modes="cls")
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps({"max_seq_length": 20, "do_lower_case": True}))
    flags = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    flags |= {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}
    del flags["pooling_mode_max_tokens"]
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    weights = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    loaded = assert_equal(folder)
    assert loaded.following.pooling == ("cls",)
    assert loaded.tokenize(["RED Lamp"]) == loaded.tokenize(["red lamp"])


def test_a_prompt_that_is_always_used_stands_in_for_both(tiny_bert, tmp_path):
    folder = made(tiny_bert, tmp_path / "m")
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": {"any": "lamp "}, "default_prompt_name": "any"}))
    own = load_pretrained(str(folder), pooling="auto", max_length=None).following
    assert (own.query_prompt, own.item_prompt) == ("lamp ", "lamp ")
    path.write_text(json.dumps({"prompts": {"query": "red ", "passage": "blue "}}))
    own = load_pretrained(str(folder), pooling="auto", max_length=None).following
    assert (own.query_prompt, own.item_prompt) == ("red ", "blue ")


def test_options_come_before_the_folder(tiny_bert, tmp_path):
    folder = str(made(tiny_bert, tmp_path / "m", dense(), unit(), modes="cls", prompts=PROMPTS))
    plain = load_pretrained(str(tiny_bert), pooling="mean", max_length=16)
    named = load_pretrained(folder, pooling="mean", max_length=16)
    assert torch.equal(vectors(named, TEXTS, True), vectors(plain, TEXTS, True))
    assert "encoder.pooling=mean pools the bare model; the folder's modules.json (cls" in named.line
    prompted = load_pretrained(
        folder, pooling="auto", max_length=16, query_prompt="", item_prompt="lamp: "
    ).following
    assert (prompted.query_prompt, prompted.item_prompt) == ("", "lamp: ")
    assert prompted.pooling == ("cls",)
    assert load_pretrained(folder, pooling="auto", max_length=16).encoder.max_length == 16


def test_a_folder_without_modules_is_pooled_by_the_mean_without_a_word(tiny_bert):
    loaded = load_pretrained(str(tiny_bert), pooling="auto", max_length=None)
    assert loaded.line == ""
    assert loaded.following.pooling == ("mean",)
    assert loaded.encoder.max_length == 64  # the model's positions, below the default


class Runs:
    def __reduce__(self):
        return exec, ("raise SystemExit('the code ran')",)


def pickled(folder: Path) -> None:
    (folder / "2_Dense" / "model.safetensors").unlink()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps(Runs()))


def rewrite(name: str, change):
    def harm(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return harm


def weights(change):
    def harm(folder: Path) -> None:
        path = folder / "2_Dense" / "model.safetensors"
        save_file({k: change(v).contiguous() for k, v in load_file(path).items()}, path)

    return harm


HARM = {
    "a list of nothing": (rewrite("modules.json", lambda m: [1]), r"modules\.json is damaged"),
    "an unknown module": (
        rewrite("modules.json", lambda m: [*m, {"path": "3_CNN", "type": "x.CNN"}]),
        "module CNN in '3_CNN', which is not followed; set encoder.pooling=mean",
    ),
    "an unknown pooling": (
        rewrite("1_Pooling/config.json", lambda c: {"pooling_mode": "median"}),
        "is 'median'; known are cls",
    ),
    "no sizes": (rewrite("2_Dense/config.json", lambda c: {}), r"config\.json is damaged"),
    "an own activation": (
        rewrite("2_Dense/config.json", lambda c: {**c, "activation_function": "mine.Act"}),
        "has the activation Act, which is not followed",
    ),
    "another width": (
        rewrite("2_Dense/config.json", lambda c: {**c, "in_features": 16}),
        "takes vectors of width 16, and those before it have 32",
    ),
    "other sizes": (weights(lambda w: w[:1]), "does not fit its config.json"),
    "no number": (weights(lambda w: w / 0), "holds NaN or infinity"),
    "code": (pickled, "holds more than tensors, and code in it is not run"),
    "no weights": (
        lambda f: (f / "2_Dense" / "model.safetensors").unlink(),
        r"2_Dense has no weights \(model\.safetensors",
    ),
    "cut": (
        lambda f: (f / "2_Dense" / "model.safetensors").write_bytes(b"\x10"),
        r"cannot read .*2_Dense.*download it again",
    ),
}


@pytest.mark.parametrize("kind", HARM)
def test_what_is_wrong_with_a_module_is_one_sentence(kind, tiny_bert, tmp_path):
    harm, words = HARM[kind]
    folder = made(tiny_bert, tmp_path / "m", dense())
    harm(folder)
    with pytest.raises(ConfigError, match=words) as caught:
        load_pretrained(str(folder), pooling="auto", max_length=None)
    assert "\n" not in str(caught.value)
    assert load_pretrained(str(folder), pooling="mean", max_length=None).following.dense == ()


@pytest.fixture
def rich(tiny_bert, tmp_path) -> Path:
    return made(
        tiny_bert,
        tmp_path / "rich",
        dense(),
        unit(),
        modes="max",
        prompts=PROMPTS,
        include_prompt=False,
    )


SCORES = ["architecture.score=cosine", "architecture.score=dot"]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_item_vectors_of_a_run_are_the_folders_kept_or_not(
    tuning, score, rich, shop_words, tmp_path, monkeypatch
):
    from sentence_transformers import SentenceTransformer

    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [*shop_words, f"encoder.model={rich}", f"tuning={tuning}", score]
    words += [] if tuning == "frozen" else ["tuning.layers=1"]
    run = build.assemble(compose(words))
    parts = run.recommender.parts
    assert (parts.encoding.vectors if tuning == "frozen" else parts.encoding.prefix) is not None
    want = SentenceTransformer(str(rich), device="cpu").encode_document(list(parts.texts))
    found = run.recommender.index_catalog().detach()
    torch.testing.assert_close(found, torch.tensor(want), atol=1e-5, rtol=1e-4)
    plain = build.assemble(compose([*words, "encoder.cache=false"]))
    torch.testing.assert_close(
        plain.recommender.index_catalog().detach(), found, atol=1e-5, rtol=1e-4
    )
    if tuning == "full":
        trained = {
            n for n in run.recommender.get_trained_parameters() if n.startswith("_encoder.dense.")
        }
        assert trained == {"_encoder.dense.0.linear.weight", "_encoder.dense.0.linear.bias"}


def test_kept_vectors_of_other_prompts_or_maps_are_not_taken(
    rich, shop_words, tmp_path, monkeypatch
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [*shop_words, f"encoder.model={rich}", "tuning=frozen"]

    def built(*more: str) -> bool:
        kept = build.assemble(compose([*words, *more])).recommender.encoding.vectors
        return bool(kept is not None and kept.report.built)

    assert built()
    assert not built()
    assert built("encoder.item_prompt='lamp '")
    assert not built("encoder.query_prompt='lamp '")
    weights(lambda w: w * 2)(rich)
    assert built()
    rewrite("1_Pooling/config.json", lambda c: {**c, "include_prompt": True})(rich)
    assert built()


def test_texts_of_users_are_led_by_the_query_prompt(rich, shop_words, monkeypatch, tmp_path):
    from sentence_transformers import SentenceTransformer

    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [*shop_words, f"encoder.model={rich}", "tuning=frozen", "architecture.user=text"]
    run = build.assemble(compose(words))
    model, texts = run.recommender.eval(), run.recommender.parts.texts
    batch = next(iter(run.datamodule.test_dataloader()))
    with torch.no_grad():
        found = model.queries(batch, model.index(batch.plan))
    history = batch.history[batch.query[0, 0]][: batch.query[0, 1]]
    rows = [int(batch.plan.items[i]) for i in reversed(history.tolist()) if i >= 0]
    # The separator is no word of this tokenizer: an unknown token, as in the text of the oracle.
    said = " ; ".join(texts[row] for row in rows)
    want = torch.tensor(SentenceTransformer(str(rich), device="cpu").encode_query([said]))
    torch.testing.assert_close(found[:1], want, atol=1e-5, rtol=1e-4)


def test_a_run_records_what_it_followed_and_recommends_by_it(
    rich, shop_words, monkeypatch, tmp_path, capsys
):
    from sentence_transformers import SentenceTransformer

    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [*shop_words, "experiment=zero_shot", f"encoder.model={rich}"]
    assert main([w for w in words if not w.startswith(("optimizer", "trainer.epochs"))]) == 0
    told = [x for x in capsys.readouterr().err.splitlines() if x.startswith("encoder:")]
    assert len(told) == 1
    assert "max pooling, Dense 32->12 tanh, unit length" in told[0]
    (folder,) = (tmp_path / "runs").iterdir()
    follows = json.loads((folder / "result.json").read_text())["encoder"]["follows"]
    assert follows["pooling"] == ["max"]
    assert (follows["item_prompt"], follows["query_prompt"]) == ("chair ", "table red ")
    assert follows["dense"][0]["outputs"] == 12
    lines = recommend({"run": str(folder), "text": "red lamp", "k": "5"})
    oracle = SentenceTransformer(str(rich), device="cpu")
    texts = [line.split(maxsplit=3)[3] for line in lines]
    query = torch.tensor(oracle.encode_query(["red lamp"]))
    scores = (torch.tensor(oracle.encode_document(texts)) @ query.T)[:, 0]
    assert texts[0] == texts[int(scores.argmax())]
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
