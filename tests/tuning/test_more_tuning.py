"""The further tuning methods: each works in a family or says why it does not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.encoders.cache.frozen_layers import FrozenLayerCache
from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import find_layer_stack
from recsys.encoders.peft.prefix_attention import PrefixAttention, widen_mask
from recsys.errors import ConfigError
from recsys.recommender import flops
from recsys.runtime.store import Store
from recsys.tuning import bitfit, full, ia3, peft, prefix, top_layers
from recsys.types import Tuned
from tests.encoders.cache.test_frozen_layers import ROWS, catalog
from tests.encoders.families import FAMILIES, texts, tiny

Apply = Callable[[Encoder], Tuned]

BIASED = {"bert", "distilbert", "roberta"}
OPEN = {"bert", "roberta", "llama", "qwen3"}
ALL = set(FAMILIES)
# name: (method, lowest layer of three, families that can, sentence for those that cannot)
CASES: dict[str, tuple[Apply, int, set[str], str]] = {
    "bitfit": (lambda e: bitfit.apply(e, bitfit.Config()), 0, BIASED, "have none"),
    "bitfit1": (lambda e: bitfit.apply(e, bitfit.Config(layers=1)), 2, BIASED, "have none"),
    "bitfit subset": (
        lambda e: bitfit.apply(e, bitfit.Config(layers=2, terms="query_and_feedforward")),
        1,
        BIASED,
        "needs a map of its own|needs a feed-forward of two maps",
    ),
    "top": (lambda e: top_layers.apply(e, top_layers.Config()), 1, ALL, ""),
    "top no norm": (
        lambda e: top_layers.apply(e, top_layers.Config(layers=1, norm=False)),
        2,
        ALL,
        "",
    ),
    "prefix": (lambda e: prefix.apply(e, prefix.Config(length=3)), 0, OPEN, "takes none"),
    "prefix1": (
        lambda e: prefix.apply(e, prefix.Config(length=4, layers=1, projection=8, start="random")),
        2,
        OPEN,
        "takes none",
    ),
    "ia3": (lambda e: ia3.apply(e, ia3.Config()), 0, ALL - {"modernbert"}, "map of its own"),
    "ia3 2": (lambda e: ia3.apply(e, ia3.Config(layers=2)), 1, ALL - {"modernbert"}, "own"),
    "vera": (lambda e: other(e, "vera"), 0, ALL, ""),
    "vera1": (lambda e: other(e, "vera", layers=1, targets="attention"), 2, ALL, ""),
}
ADDING = {"prefix", "prefix1", "ia3", "ia3 2", "vera", "vera1"}
# What a width of 32 needs.
OPTIONS: dict[str, dict[str, object]] = {
    "boft": {"boft_block_size": 4},
    "c3a": {"block_size": 16},
    "fourierft": {"n_frequency": 40},
    "gralora": {"r": 4, "gralora_k": 2},
    "lily": {"num_B": 2},
    "miss": {"r": 8},
    "oft": {"oft_block_size": 16},
    "psoft": {"r": 4},
    "road": {"group_size": 16},
    "shira": {"r": 4},
    "vblora": {"vector_length": 16, "num_vectors": 8},
    "vera": {"r": 4},
    "waveft": {"n_frequency": 40},
}


def other(encoder: Encoder, method: str, **options: object) -> Tuned:
    own = OPTIONS.get(method, {})
    return peft.apply(encoder, peft.Config(method=method, options=own, **options))


def pairs(*, able: bool) -> list[tuple[str, str]]:
    return [(n, f) for n, case in CASES.items() for f in FAMILIES if (f in case[2]) is able]


def step(encoder: Encoder, times: int = 2) -> None:
    """What is zero at first moves its partner in the second step."""
    tokens = texts(5, 0, 30, 1, 12)
    optimizer = torch.optim.Adam([p for p in encoder.parameters() if p.requires_grad], lr=0.02)
    target = torch.randn(len(tokens), 32, generator=torch.Generator().manual_seed(2))
    for _ in range(times):
        optimizer.zero_grad()
        (encoder(tokens) - target).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "family"), pairs(able=True))
def test_what_trains_is_what_is_named_and_restores_the_output(family: str, name: str) -> None:
    tokens = texts(5, 0, 30, 1, 12)
    apply, lowest, _, _ = CASES[name]
    encoder = tiny(family, budget=60).eval()
    before, pretrained = encoder(tokens), dict(encoder.named_parameters())
    tuned = apply(encoder)
    encoder.eval()
    assert torch.equal(encoder(tokens), before) is tuned.identical
    assert tuned.identical is not name.startswith("prefix")
    assert (tuned.lowest_layer, encoder.lowest_trained, tuned.anchor) == (
        lowest,
        lowest,
        "pretrained",
    )
    own = dict(encoder.named_parameters())
    assert tuned.trained == {n for n, p in own.items() if p.requires_grad}
    assert {own[n].dtype for n in tuned.trained} == {torch.float32}
    new = {n for n in own if n.replace(".base_layer.", ".") not in pretrained}
    assert tuned.added == (new & tuned.trained)
    assert tuned.added == (tuned.trained if name in ADDING else set())
    start = {n: p.detach().clone() for n, p in own.items()}
    assert tuned.no_decay >= {n for n in tuned.trained if start[n].ndim == 1}
    step(encoder.train())
    assert {n for n, p in own.items() if p.grad is not None} == tuned.trained
    changed = {n for n, p in own.items() if not torch.equal(p, start[n])}
    # Key biases shift all logits of a row alike: their gradient may round to zero.
    assert {
        n for n in tuned.trained - changed if not n.endswith(("key.bias", "k_lin.bias"))
    } == set()
    assert changed <= tuned.trained
    kept = {n: start[n].copy_(own[n].detach()) for n in tuned.trained}
    fresh = tiny(family, budget=60)
    torch.manual_seed(99)  # what is drawn anew must be part of what is kept
    apply(fresh)
    missing, unexpected = fresh.load_state_dict(kept, strict=False)
    assert not unexpected
    assert not set(missing) & tuned.trained
    assert torch.equal(fresh.eval()(tokens), encoder.eval()(tokens))


@pytest.mark.parametrize(("name", "family"), pairs(able=False))
def test_a_family_that_cannot_is_refused_with_its_name(family: str, name: str) -> None:
    apply, _, _, words = CASES[name]
    with pytest.raises(ConfigError, match=words) as caught:
        apply(tiny(family))
    assert "\n" not in str(caught.value)
    assert family[:4] in str(caught.value).lower()


@pytest.mark.parametrize(
    ("name", "family"),
    [x for x in pairs(able=True) if CASES[x[0]][1] and x[1] in ("bert", "modernbert", "qwen3")],
)
def test_kept_states_give_the_same_vectors_and_gradients(
    family: str, name: str, tmp_path: Path
) -> None:
    encoder = tiny(family, budget=60)
    tuned = CASES[name][0](encoder)
    step(encoder)
    encoder.eval()
    texts_ = catalog(tmp_path)
    cache = FrozenLayerCache.build(encoder, texts_, Store(tmp_path))
    weight = torch.randn(len(ROWS), 32, generator=torch.Generator().manual_seed(1))
    found = []
    for vectors in (encoder(texts_.gather_tokens(ROWS)), cache.compute_vectors(ROWS)):
        encoder.zero_grad()
        (vectors * weight).sum().backward()
        own = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
        found.append((vectors.detach(), own))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-5)
    assert found[0][1].keys() == found[1][1].keys() == tuned.trained
    for n, grad in found[0][1].items():
        torch.testing.assert_close(found[1][1][n], grad, rtol=1e-5, atol=1e-5)


def test_the_last_layers_are_those_of_full_with_and_without_a_norm_behind() -> None:
    for family in FAMILIES:
        one, two, bare = tiny(family), tiny(family), tiny(family)
        want = full.apply(one, full.Config(layers=2)).trained
        assert top_layers.apply(two, top_layers.Config()).trained == want
        without = top_layers.apply(bare, top_layers.Config(norm=False)).trained
        behind = {n for n in want if ".layer" not in n}
        assert without == want - behind
        assert bool(behind) is (family in {"modernbert", "llama", "qwen3"})


def test_the_biases_are_those_of_the_paper() -> None:
    encoder = tiny("bert")
    every = bitfit.apply(encoder, bitfit.Config(layers=1)).trained
    inside = "model.encoder.layer.2."
    assert every == {n for n, _ in encoder.named_parameters() if n.startswith(inside)} & {
        n for n, _ in encoder.named_parameters() if n.endswith("bias")
    }
    few = bitfit.apply(encoder, bitfit.Config(layers=1, terms="query_and_feedforward")).trained
    assert few == {f"{inside}attention.self.query.bias", f"{inside}intermediate.dense.bias"}


def by_hand(encoder: Encoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The pretrained model with the same keys and values in a cache of transformers' own."""
    cache, length = DynamicCache(), 0
    for i, layer in enumerate(find_layer_stack(encoder.model)[1]):
        (module,) = [m for m in layer.modules() if isinstance(m, PrefixAttention)]
        length, table = module.length, module.prefix.embedding.weight
        shaped = table.view(length, 2, module.heads, -1).permute(1, 2, 0, 3)
        wide = shaped[:, None].expand(-1, len(ids), -1, -1, -1)
        cache.update(wide[0], wide[1], i)
    plain = tiny(FAMILY_OF[type(encoder.model).__name__]).eval()
    front = torch.ones(len(ids), length, dtype=torch.long)
    out = plain.model(
        input_ids=ids,
        attention_mask=torch.cat([front, mask], dim=1),
        position_ids=torch.arange(ids.shape[1])[None],
        past_key_values=cache,
    )
    return out.last_hidden_state


FAMILY_OF = {"BertModel": "bert", "LlamaModel": "llama", "Qwen3Model": "qwen3"}


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("family", FAMILY_OF.values())
def test_a_prefix_is_a_cache_of_earlier_tokens(family: str, padded: bool) -> None:
    encoder = tiny(family).eval()
    prefix.apply(encoder, prefix.Config(length=3, start="random"))
    ids = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 4:] = 0
    with torch.no_grad():
        got = encoder.model(input_ids=ids, attention_mask=mask, **flag(encoder)).last_hidden_state
        want = by_hand(encoder, ids, mask)
    real = mask.bool()
    torch.testing.assert_close(got[real], want[real], atol=1e-5, rtol=1e-5)


def flag(encoder: Encoder) -> dict[str, bool]:
    return {"use_cache": False} if encoder.cache_flag else {}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", sorted(OPEN))
def test_a_text_with_a_prefix_does_not_depend_on_company(family: str, implementation: str) -> None:
    encoder = tiny(family, budget=90).eval()
    encoder.model.set_attn_implementation(implementation)
    prefix.apply(encoder, prefix.Config(length=3, start="random"))
    tokens = texts(5, 0, 30, 1, 12)
    together = encoder(tokens)
    for i, part in enumerate(tokens.split()):
        alone = encoder(type(tokens)(part, (len(part),)))
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


def test_a_prefix_starts_from_real_tokens_or_numbers() -> None:
    sizes = {}
    for start in ("tokens", "random", "small"):
        encoder = tiny("bert")
        tuned = prefix.apply(encoder, prefix.Config(length=3, start=start))
        own = dict(encoder.named_parameters())
        assert {own[n].shape for n in tuned.added} == {(3, 64)}
        assert tuned.no_decay == tuned.added
        sizes[start] = float(torch.cat([own[n].detach().flatten() for n in tuned.added]).std())
    assert 0.015 < sizes["small"] < 0.025
    assert 0.5 < sizes["random"] < 1.5
    assert 0 < sizes["tokens"] < 0.5  # tiny random maps give small keys


def test_a_start_from_tokens_is_what_the_pretrained_layers_make_of_them() -> None:
    encoder, plain = tiny("bert").eval(), tiny("bert").eval()
    torch.manual_seed(5)
    prefix.apply(encoder, prefix.Config(length=3, start="tokens"))
    torch.manual_seed(5)
    drawn = torch.tensor([i for i in range(50) if i > 2])[torch.randint(47, (3,))]
    ids = torch.tensor([[1, *drawn.tolist(), 2]])
    first = plain.model.encoder.layer[0].attention.self
    states = plain.model.embeddings(ids)
    want = torch.cat([first.key(states), first.value(states)], dim=2)[0, 1:4]
    got = encoder.get_parameter("model.encoder.layer.0.attention.prefix.embedding.weight")
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6, check_device=False)


@pytest.mark.parametrize("projection", [None, 8])
def test_keys_that_start_small_do_not_stay_alike(projection: int | None) -> None:
    encoder = tiny("bert")
    prefix.apply(encoder, prefix.Config(length=3, layers=1, projection=projection))
    step(encoder)
    (module,) = [m for m in encoder.modules() if isinstance(m, PrefixAttention)]
    made = module.prefix(torch.arange(3)).detach()
    assert torch.pdist(made).min() > 0.01


def test_masks_are_widened_by_what_every_token_sees() -> None:
    states = torch.zeros(2, 3, 4)
    assert widen_mask(None, states, 2, causal=False) is None
    seen = widen_mask(None, states, 2, causal=True)
    assert seen is not None
    assert seen[0, 0].tolist() == [
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, True, True, True],
    ]
    own = torch.full((2, 1, 3, 3), -5.0)
    assert widen_mask(own, states, 2, causal=True)[0, 0, 0].tolist() == [0, 0, -5, -5, -5]
    with pytest.raises(ConfigError, match="sdpa and eager"):
        widen_mask(torch.ones(2, 3), states, 2, causal=False)


def test_learned_keys_count_as_operations() -> None:
    plain, tuned = tiny("bert"), tiny("bert")
    top_layers.apply(plain, top_layers.Config(layers=3))
    prefix.apply(tuned, prefix.Config(length=6, projection=8))
    with torch.no_grad():
        one, two = flops.probe(plain, None), flops.probe(tuned, None)
    assert two.square == one.square == 3 * 4 * 32
    assert two.token == one.token + 6 * two.square


def test_scales_merge_and_are_not_decayed() -> None:
    tokens = texts(5, 0, 12)
    for family in ("bert", "qwen3"):
        encoder = tiny(family)
        tuned = ia3.apply(encoder, ia3.Config())
        assert tuned.no_decay == tuned.trained
        own = dict(encoder.named_parameters())
        narrow = 32 if family == "bert" else 16  # of two key heads
        # Keys, values and the inner activation of the feed-forward, in three layers.
        assert sorted(own[n].numel() for n in tuned.trained) == [narrow] * 6 + [48] * 3
        step(encoder)
        before = encoder.eval()(tokens)
        assert tuned.merge is not None
        tuned.merge()
        torch.testing.assert_close(encoder(tokens), before, atol=1e-5, rtol=1e-5)
        assert set(encoder.state_dict()) == set(tiny(family).state_dict())


def test_learning_rates_and_decay_go_by_role(shop_words, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))

    def groups(tuning: str, *more: str) -> dict[str, tuple[float, float, int]]:
        words = [f"tuning={tuning}", "optimizer.encoder_lr=0.25", "optimizer.lr=0.5", *more]
        model = build.assemble(compose([*shop_words, *words])).recommender
        monkeypatch.setattr(type(model), "count_planned_steps", lambda self: 10)
        made, _ = model.make_optimizer(model.get_stepped_roles())
        return {
            g["name"]: (g["initial_lr"], g["weight_decay"], len(g["params"]))
            for g in made.param_groups
        }

    # Two residual heads, the rate of the decay and the temperature, at `lr` unless told.
    heads = {"head": (0.5, 0.01, 2), "head/no_decay": (0.5, 0.0, 2)}
    assert groups("ia3") == heads | {"tuned/no_decay": (0.5, 0.0, 9)}
    assert groups("prefix") == heads | {"tuned/no_decay": (0.5, 0.0, 3)}
    assert groups("bitfit") == heads | {"encoder/no_decay": (0.25, 0.0, 24)}
    assert groups("top_layers") == heads | {
        "encoder": (0.25, 0.01, 12),
        "encoder/no_decay": (0.25, 0.0, 20),
    }
    own = {"head": (0.125, 0.01, 2), "head/no_decay": (0.125, 0.0, 2)}
    assert groups("ia3", "optimizer.head_lr=0.125") == own | {"tuned/no_decay": (0.5, 0.0, 9)}


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (lambda e: bitfit.apply(e, bitfit.Config(layers=4)), "has 3 layers"),
        (lambda e: top_layers.apply(e, top_layers.Config(layers=0)), "has 3 layers"),
        (lambda e: ia3.apply(e, ia3.Config(layers=9)), "has 3 layers"),
        (
            lambda e: prefix.apply(e, prefix.Config(length=19, start="tokens")),
            "room for a text of 18",
        ),
        (
            lambda e: prefix.apply(e, prefix.Config(projection=8, start="tokens")),
            "set tuning.start to small",
        ),
        (lambda e: prefix.apply(e, prefix.Config(layers="two")), "tuning.layers"),
    ],
)
def test_wrong_settings_are_refused(apply: Apply, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        apply(tiny("bert"))
    assert "\n" not in str(caught.value)
