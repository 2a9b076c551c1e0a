"""Folders that cannot be used as they are: one sentence each, with the file and the remedy."""

import hashlib
import json
import shutil
import struct
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertModel, T5Config, T5EncoderModel

from recsys.encoders.pretrained.load import load_encoder, load_pretrained
from recsys.encoders.pretrained.source import ModelFiles
from recsys.encoders.pretrained.tokenizer import load_tokenizer
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.runs.provenance import identify_encoder

WEIGHT = "encoder.layer.1.output.dense.weight"


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def change(folder: Path, name: str, make) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = make(tensors[name]).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **values: object) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **values}))


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {WEIGHT: "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def long_ids(folder: Path) -> None:
    words = AutoTokenizer.from_pretrained(folder)
    words.add_tokens(["ottoman", "futon"])
    words.save_pretrained(folder)


def pieces(folder: Path) -> None:
    without_tokenizer(folder)
    configure(folder, model_type="deberta-v2")
    (folder / "spm.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")


def code(folder: Path) -> None:
    (folder / "made_up.py").write_text("raise SystemExit('the code ran')\n")
    configure(folder, model_type="made_up", auto_map={"AutoConfig": "made_up.Config"})


def tokenizer_code(folder: Path) -> None:
    (folder / "made_up.py").write_text("raise SystemExit('the code ran')\n")
    without_tokenizer(folder)
    told = {"auto_map": {"AutoTokenizer": ["made_up.Words", None]}, "tokenizer_class": "Words"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def write(name: str, data: bytes):
    return lambda folder: (folder / name).write_bytes(data)


PAST = struct.pack("<Q", 2**40) + b"{}"
DEEP = b"[" * 100_000
FLOAT8 = torch.float8_e4m3fn
DAMAGE = {
    "a pointer": (
        write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        r"model\.safetensors is a Git LFS pointer.*git lfs pull",
    ),
    "cut": (cut, r"model\.safetensors is cut off \([\d,]+ of [\d,]+ bytes\); download it again"),
    "empty": (write("model.safetensors", b""), r"model\.safetensors is empty; download"),
    "a page": (write("model.safetensors", b"<html>not found</html>"), "is no safetensors file"),
    "a long header": (write("model.safetensors", PAST), "is no safetensors file, or the first"),
    "a part is missing": (shard, r"model-00001-of-00002\.safetensors is missing"),
    "of another size": (
        lambda f: configure(f, vocab_size=24),
        r"config\.json: embeddings\.word_embeddings\.weight is \(15, 32\), and \(24, 32\)",
    ),
    "would broadcast": (lambda f: change(f, WEIGHT, lambda w: w[:1]), r"is \(1, 64\), and \(32"),
    "whole numbers": (lambda f: change(f, WEIGHT, lambda w: w.char()), "is of type I8, as in a"),
    "eight bits": (lambda f: change(f, WEIGHT, lambda w: w.to(FLOAT8)), "of type F8_E4M3"),
    "no number": (lambda f: change(f, WEIGHT, lambda w: w / 0), r"hold NaN or infinity \(encoder"),
    "a list": (write("config.json", b"[]"), r"config\.json holds a JSON list and no object"),
    "no JSON": (write("config.json", b"{"), r"config\.json cannot be read as JSON"),
    "no text": (write("config.json", b"\xff\xfe{"), r"config\.json cannot be read as JSON"),
    "deep": (write("config.json", DEEP), r"config\.json cannot be read as JSON"),
    "quantised": (
        lambda f: configure(f, quantization_config={"quant_method": "bitsandbytes"}),
        r"is quantised \(bitsandbytes\).*floating point",
    ),
    "pictures": (
        lambda f: configure(f, model_type="gemma3", text_config={}, vision_config={}),
        r"a model of texts and vision \(gemma3\); take a text-only model",
    ),
    "unknown": (lambda f: configure(f, model_type="bort2"), "model_type 'bort2'.*a newer one"),
    "code": (code, r"needs code of its own \(auto_map in config\.json\), which is not run"),
    "an adapter": (
        write("adapter_config.json", b"{}"),
        r"holds a PEFT adapter \(adapter_config\.json\) beside its weights; merge it",
    ),
    "no tokenizer": (without_tokenizer, "has no tokenizer files"),
    "no sentencepiece": (pieces, r"is spm\.model, which sentencepiece reads; run pip install sent"),
    "a tokenizer's code": (tokenizer_code, "needs code of its own"),
    "a damaged tokenizer": (write("tokenizer.json", b"{"), r"tokenizer\.json cannot be read as J"),
    "an odd tokenizer": (write("tokenizer.json", b"{}"), "cannot load the tokenizer"),
    "ids beyond": (long_ids, r"has ids up to 16 \('futon'\) and the embeddings have 15 rows"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_wrong_with_a_folder_is_one_sentence(kind, folder, monkeypatch):
    harm, words = DAMAGE[kind]
    harm(folder)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a prompt"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=words) as caught:
        load_encoder(str(folder), pooling="mean", max_length=16)
    assert "\n" not in str(caught.value)


def test_an_encoder_decoder_is_not_told_to_be_incomplete(folder):
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    T5EncoderModel(T5Config(vocab_size=50, **sizes)).save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"encoder-decoder family \(t5\), and these are not"):
        load_encoder(str(folder), pooling="mean", max_length=16)


def test_an_adapter_alone_and_pickled_weights_have_sentences_of_their_own(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin only, which may hold code"):
        load_encoder(str(folder), pooling="mean", max_length=16)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match="and not the model that it belongs to; merge it"):
        load_encoder(str(folder), pooling="mean", max_length=16)


@pytest.mark.parametrize("name", ["~nosuchuser/model", "/" + "x" * 300])
def test_a_name_that_can_be_no_folder_is_told(name):
    with pytest.raises(ConfigError, match="cannot be a folder"):
        load_encoder(name, pooling="mean", max_length=16)


def test_code_beside_a_family_that_is_known_is_not_run(folder):
    code(folder)
    configure(folder, model_type="bert")
    tokens = load_encoder(str(folder), pooling="mean", max_length=16)
    assert type(tokens.model) is BertModel


def test_a_tokenizer_of_bytes_has_no_unknown_token_and_is_no_empty_one(tiny_bytes):
    assert len(load_tokenizer(ModelFiles.locate(str(tiny_bytes))).get_vocab()) > 250


def test_weights_in_half_precision_and_in_parts_load_as_they_are(folder):
    whole = load_encoder(str(folder), pooling="mean", max_length=16).state_dict()
    half = AutoModel.from_pretrained(folder).half()
    (folder / "model.safetensors").unlink()
    half.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    for name, value in (
        load_encoder(str(folder), pooling="mean", max_length=16).state_dict().items()
    ):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, whole[name], atol=1e-3, rtol=1e-3)


def shop_of(folder: Path, names: list[str]) -> list[str]:
    items = pl.DataFrame({"what": [f"{i:03}" for i in range(30)], "name": names})
    items.write_csv(folder / "named.csv")
    return [f"data.source.items={folder / 'named.csv'}", "trainer.epochs=1", "tuning=frozen"]


def test_texts_that_the_tokenizer_does_not_know_are_refused_or_told(shop_words, tmp_path, capsys):
    known = ["red lamp"] * 15
    strange = [f"ein roter Stuhl {i}" for i in range(30)]
    assert main([*shop_words, *shop_of(tmp_path, strange)]) == 2
    told = capsys.readouterr().err
    assert "100% of the tokens of the item texts are unknown" in told
    assert "encoder.model=" in told
    assert not list((tmp_path / "runs").glob("*/result.json"))
    assert main([*shop_words, *shop_of(tmp_path, [*known, *strange[:15]])]) == 0
    told = capsys.readouterr().err
    assert "warning: 67% of the tokens of the item texts are unknown" in told
    assert main([*shop_words, *shop_of(tmp_path, [*known, *known])]) == 0
    assert "unknown" not in capsys.readouterr().err


def test_a_folder_without_a_tokenizer_ends_with_code_2(shop_words, folder, capsys):
    without_tokenizer(folder)
    assert main([*shop_words, f"encoder.model={folder}"]) == 2
    assert "has no tokenizer files" in capsys.readouterr().err


@pytest.fixture
def snapshot(tiny_bert: Path, tmp_path: Path, monkeypatch) -> Path:
    """The folder of what was downloaded of a model of the hub, which cannot be asked now."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    home = tmp_path / "models--made-up--tiny"
    folder = Path(shutil.copytree(tiny_bert, home / "snapshots" / "abc"))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    return folder


def test_a_model_of_the_hub_is_read_from_what_was_downloaded(snapshot):
    loaded = load_pretrained("made-up/tiny", pooling="auto", max_length=None)
    assert "could not be asked whether made-up/tiny has a modules.json" in loaded.line
    assert loaded.files.find_weights() == snapshot / "model.safetensors"
    assert load_pretrained("made-up/tiny", pooling="mean", max_length=16).line == ""
    cut(snapshot)
    with pytest.raises(ConfigError, match=r"abc/model\.safetensors is cut off"):
        load_encoder("made-up/tiny", pooling="mean", max_length=16)
    with pytest.raises(ConfigError, match="no model of the hub with a config"):
        load_encoder("made-up/other", pooling="mean", max_length=16)


def test_the_checksum_is_of_what_was_loaded_though_the_hub_has_moved_on(snapshot):
    loaded = load_pretrained("made-up/tiny", pooling="mean", max_length=16)
    later = Path(shutil.copytree(snapshot, snapshot.with_name("def")))
    change(later, WEIGHT, lambda weight: weight + 1)
    (snapshot.parents[1] / "refs" / "main").write_text("def")
    assert ModelFiles.locate("made-up/tiny").folder == later
    about = identify_encoder(loaded.files, loaded.following)
    assert about["model"] == "made-up/tiny"
    assert (
        about["sha256"] == hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()
    )


@pytest.mark.parametrize("more", [[], ["data.negatives=hard", "objective=bpr"]], ids=["", "hard"])
def test_a_run_resolves_and_loads_the_pretrained_model_once(
    more, shop_words, tmp_path, monkeypatch
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    calls = Counter()

    def count(owner, name):
        original = getattr(owner, name)

        def counted(*args, **options):
            calls[owner.__name__] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, counted)

    for owner in (AutoTokenizer, AutoModel):
        count(owner, "from_pretrained")
    count(ModelFiles, "locate")
    assert main([*shop_words, "tuning=lora", "trainer.epochs=1", *more]) == 0
    assert calls == {"AutoTokenizer": 1, "AutoModel": 1, "ModelFiles": 1}
    (run,) = (tmp_path / "runs").glob("*/result.json")
    assert json.loads(run.read_text())["encoder"]["sha256"]
