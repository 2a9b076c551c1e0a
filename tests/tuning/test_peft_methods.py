"""Methods of the PEFT library by their names there, and their options."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from recsys.config.compose import compose, make_node
from recsys.encoders.encoder import Encoder
from recsys.encoders.peft.methods import METHODS, describe_type, is_of_type
from recsys.errors import ConfigError
from recsys.tuning import peft
from recsys.types import Tuned
from tests.encoders.families import texts, tiny
from tests.tuning.test_more_tuning import Apply, other, step


def given(encoder: Encoder, method: str, **options: object) -> Tuned:
    return peft.apply(encoder, peft.Config(method=method, options=dict(options)))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_of_peft_starts_trains_merges_and_is_restored(method: str) -> None:
    tokens = texts(5, 0, 30, 1, 12)
    encoder = tiny("bert", budget=99).eval()
    before = encoder(tokens)
    tuned = other(encoder, method, layers=2)
    encoder.eval()
    near = {"vblora": 1e-3, "unilora": 1e-4}.get(method, 1e-5)
    torch.testing.assert_close(encoder(tokens), before, atol=near, rtol=1e-5)
    assert torch.equal(encoder(tokens), before) or not tuned.identical
    assert (tuned.lowest_layer, tuned.anchor, tuned.added) == (1, "pretrained", tuned.trained)
    start = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    step(encoder, 3)
    own = dict(encoder.named_parameters())
    assert {n for n, p in own.items() if p.grad is not None} == tuned.trained
    assert {n for n, p in own.items() if not torch.equal(p, start[n])} == tuned.trained
    after = encoder.eval()(tokens)
    assert (after - before).abs().max() > 1e-3
    fresh = tiny("bert", budget=99)
    torch.manual_seed(99)
    other(fresh, method, layers=2)
    kept = {n: own[n].detach().clone() for n in tuned.trained}
    assert not fresh.load_state_dict(kept, strict=False).unexpected_keys
    torch.testing.assert_close(fresh.eval()(tokens), after, atol=1e-6, rtol=1e-6)
    assert (tuned.merge is not None) is (method not in UNMERGED)
    if tuned.merge is not None:
        tuned.merge()
        torch.testing.assert_close(encoder(tokens), after, atol=1e-4, rtol=1e-4)
        assert set(encoder.state_dict()) == set(tiny("bert").state_dict())


UNMERGED = {"lily"}


def test_a_name_in_capitals_is_the_same_method() -> None:
    encoder = tiny("bert")
    assert other(encoder, "VeRA", layers=1).trained == other(tiny("bert"), "vera", layers=1).trained


def test_factors_are_not_decayed() -> None:
    encoder = tiny("bert")
    boft = other(encoder, "boft", layers=1)
    assert {n for n in boft.trained if ".boft_s." in n} == boft.no_decay


def test_options_of_a_method_are_amended_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "tuning:\n  name: peft\n  method: vera\n  options: {r: 8, d_initial: 0.2}\n"
    )
    tuning = compose(["experiment=mine", "tuning.options.r=4"], tmp_path).tuning
    assert asdict(tuning)["options"] == {"r": 4, "d_initial": 0.2}
    run = compose(["experiment=mine"], tmp_path)
    assert make_node(run)["tuning"]["options"] == {"r": 8, "d_initial": 0.2}
    bare = compose(["tuning=peft", "tuning.options.r=2", "tuning.method=oft"]).tuning
    assert (bare.method, bare.options) == ("oft", {"r": 2})


def test_values_are_checked_against_types() -> None:
    assert is_of_type(3, int)
    assert not is_of_type(True, int)
    assert is_of_type(3, float)
    assert not is_of_type("3", float)
    assert is_of_type(None, int | None)
    assert not is_of_type(None, int)
    assert is_of_type([1, 2], list[int])
    assert not is_of_type([1, "x"], list[int])
    assert is_of_type({"a": 1}, dict)
    assert describe_type(int | None) == "a whole number or null"
    assert describe_type(list[str]) == "a list of a word"


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (lambda e: other(e, ""), r"needs tuning\.method\. Known: beft"),
        (lambda e: other(e, "veera"), r"PEFT has no 'veera'\. Did you mean 'vera'"),
        (lambda e: other(e, "lora"), "tuning=lora"),
        (lambda e: other(e, "ia3"), "tuning=ia3"),
        (lambda e: other(e, "prefix_tuning"), "tuning=prefix"),
        (lambda e: other(e, "prompt_tuning"), "tuning=prefix does it"),
        (lambda e: other(e, "p_tuning"), "tuning=prefix does it"),
        (lambda e: other(e, "adalora"), "an extra call after every optimiser step"),
        (lambda e: other(e, "bottleneck"), "PEFT has no 'bottleneck'"),
        (lambda e: other(e, "vera", layers=4), "has 3 layers"),
        (lambda e: other(e, "ln_tuning", targets="linear"), "tunes norms"),
        (lambda e: given(e, "vera", rank=4), r"rank is no option of vera\..*Known: d_initial"),
        (lambda e: given(e, "vera", vera_droput=0.1), "Did you mean 'vera_dropout'"),
        (lambda e: given(e, "vera", r="four"), "r is 'four', and vera takes a whole number"),
        (lambda e: given(e, "vera", r=True), "takes a whole number"),
        (lambda e: given(e, "oft", r=5), "tuning.*oft: "),
        (lambda e: given(e, "vera", target_modules=["x"]), "tuning.layers and tuning.targets say"),
        (lambda e: given(e, "vera", bias="all"), "cannot be set"),
        (lambda e: given(e, "lokr", init_weights="x"), "true or false or 'lycoris'"),
        (lambda e: given(e, "vblora", vector_length=7), "divisible by `vector_length` 7"),
        (lambda e: given(e, "loha", module_dropout=5), r"module_dropout is 5.*0 to below 1"),
        (lambda e: given(e, "vera", r=0), r"r is 0.*1 or more"),
        (lambda e: given(e, "loha", r=-1), r"r is -1.*1 or more"),
        (lambda e: given(e, "loha", rank_pattern={"query": "x"}), "rank_pattern has 'x' for query"),
        (lambda e: given(e, "loha", rank_pattern={"querry": 4}), "'querry' names no module"),
        (lambda e: other(e, "LORA"), "tuning=lora"),
    ],
)
def test_wrong_settings_are_refused(apply: Apply, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        apply(tiny("bert"))
    assert "\n" not in str(caught.value)
