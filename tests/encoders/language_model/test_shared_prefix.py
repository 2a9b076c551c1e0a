"""A prefix that is read once gives the states, scores and gradients of one read with each end."""

import pytest
import torch
import torch.nn.functional as F

from recsys.encoders.encoder import Encoder
from recsys.encoders.language_model.head import WordHead
from recsys.encoders.language_model.kept_states import KeepOptions
from recsys.encoders.language_model.prefix_trees import PrefixTrees
from recsys.encoders.language_model.shared_prefix import SharedPrefixReader, check_causal
from recsys.encoders.layers import find_layer_stack
from recsys.encoders.packing.enabling import enable_packing
from recsys.encoders.pretrained.source import ModelFiles
from recsys.encoders.special_tokens import SpecialTokens
from recsys.errors import ConfigError
from recsys.tuning import frozen, lora, prefix
from recsys.types import Ragged
from tests.encoders.families import FAMILIES
from tests.encoders.language_model.decoders import DECODERS, WINDOW, make_decoder

SPECIALS = SpecialTokens((), (), (), 0)
YES, NO = 7, 11
LEFT = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
RIGHT = torch.tensor([0, 3, 1, 2, 4, 0, 3, 1])
LABELS = torch.tensor([1.0, 0, 0, 1, 0, 1, 0, 0])
each_family = pytest.mark.parametrize("family", DECODERS)


def ragged(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return Ragged(torch.randint(3, 60, (sum(sizes),), generator=generator), sizes)


# Longer than the window, shorter, and one that is about as long.
PREFIXES, ENDS = ragged(1, 19, 3, 7), ragged(2, 5, 1, 9, 2, 3)
PAIRS = [
    torch.cat([PREFIXES.split()[a], ENDS.split()[b]]) for a, b in zip(LEFT, RIGHT, strict=True)
]


def encoder_of(causal, **options):
    base = getattr(causal, causal.base_model_prefix)
    return Encoder(base, SPECIALS, "mean", 64, options.pop("budget", 256), **options)


def head_of(causal, tmp_path):
    causal.save_pretrained(tmp_path / "model")
    files = ModelFiles.locate(str(tmp_path / "model"))
    return WordHead(files, getattr(causal, causal.base_model_prefix), (YES, NO))


def read(encoder, share):
    reader = SharedPrefixReader(encoder, share)
    return reader.read(reader.plan(PREFIXES, ENDS, LEFT, RIGHT))


def gradients(encoder, scores):
    loss = F.binary_cross_entropy_with_logits(scores, LABELS)
    encoder.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}


def score_alone(causal):
    """The model itself, with its head, on each sequence by itself."""
    logits = torch.stack([causal(input_ids=ids[None]).logits[0, -1] for ids in PAIRS])
    return logits[:, YES] - logits[:, NO]


def score_left_padded(causal):
    """The model itself on all sequences at once, padded on the left as for generation."""
    size = max(map(len, PAIRS))
    ids = torch.stack([F.pad(each, (size - len(each), 0)) for each in PAIRS])
    mask = torch.stack([F.pad(torch.ones_like(each), (size - len(each), 0)) for each in PAIRS])
    places = (mask.cumsum(1) - 1).clamp(min=0)
    logits = causal(input_ids=ids, attention_mask=mask, position_ids=places).logits[:, -1]
    return logits[:, YES] - logits[:, NO]


@each_family
def test_scores_and_gradients_are_those_of_the_whole_model(family, tmp_path):
    causal = make_decoder(family)
    encoder, head = encoder_of(causal), head_of(causal, tmp_path)
    assert max(map(len, PAIRS)) > 3 * WINDOW
    want = score_alone(causal)
    torch.testing.assert_close(score_left_padded(causal), want, atol=1e-5, rtol=1e-5)
    causal.zero_grad()
    F.binary_cross_entropy_with_logits(want, LABELS).backward()
    base = getattr(causal, causal.base_model_prefix)
    kept = {f"model.{n}": p.grad.clone() for n, p in base.named_parameters() if p.grad is not None}
    scale = max(float(g.abs().max()) for g in kept.values())
    for share in (True, False):
        encoder.zero_grad()
        scores = head(read(encoder, share), encoder.embedding.weight)
        torch.testing.assert_close(scores, want, atol=1e-5, rtol=1e-5)
        found = gradients(encoder, scores)
        assert set(found) == set(kept)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, kept[name], atol=1e-5 * scale, rtol=1e-4)


@each_family
def test_company_and_budget_change_nothing(family):
    encoder = encoder_of(make_decoder(family))
    with torch.no_grad():
        want = read(encoder, True)
        for budget in (1, 30, 60):
            encoder.chunk_tokens = budget
            torch.testing.assert_close(read(encoder, True), want, atol=1e-5, rtol=1e-5)


def test_the_prefix_stands_once_for_all_ends():
    prefixes, ends = ragged(1, 300), ragged(2, *[16] * 20)
    left, right = torch.zeros(20, dtype=torch.long), torch.arange(20)
    shared = PrefixTrees(prefixes, ends, left, right, 0, 1024)
    assert shared.lengths == (620,)
    assert sum(PrefixTrees(prefixes, ends, left, right, 0, 1024, False).lengths) == 6320
    # A budget that is too small for all still takes as many as the prefix is long.
    assert PrefixTrees(prefixes, ends, left, right, 0, 16).lengths == (588, 332)


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3_sliding"])
def test_checkpointing_keeps_the_prefix_shared(family):
    """Activations are made again in backward, with the same loss and gradients."""
    found, read_tokens = {}, {}
    for again in (False, True):
        encoder = encoder_of(make_decoder(family), checkpoint_chunks=again).train()
        counted = []
        encoder.embedding.register_forward_hook(
            lambda module, args, out, counted=counted: counted.append(args[0].numel())
        )
        reader = SharedPrefixReader(encoder, True)
        counted.clear()
        states = reader.read(reader.plan(PREFIXES, ENDS, LEFT, RIGHT))
        found[again] = gradients(encoder, states.sum(1))
        read_tokens[again] = sum(counted)
    assert read_tokens[True] == 2 * read_tokens[False]
    for name, gradient in found[False].items():
        torch.testing.assert_close(found[True][name], gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_what_is_tuned_shares_it_too(family, method):
    """Also learned keys and values in front, which every token of every end sees."""
    encoder = encoder_of(make_decoder(family))
    if method == "lora":
        lora.apply(encoder, lora.Config(layers=2, rank=2))
    else:
        prefix.apply(encoder, prefix.Config(length=3))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.requires_grad:
                seed = torch.manual_seed(len(name))
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=seed))
    encoder.eval()
    one, other = read(encoder, True), read(encoder, False)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    direction = torch.linspace(-1, 1, 32)
    first, second = gradients(encoder, one @ direction), gradients(encoder, other @ direction)
    scale = max(float(g.abs().max()) for g in second.values())
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name], atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_both_kinds_of_attention_take_the_mask(implementation):
    causal = make_decoder("gemma3")
    causal.set_attn_implementation(implementation)
    encoder = encoder_of(causal)
    with torch.no_grad():
        torch.testing.assert_close(read(encoder, True), read(encoder, False), atol=1e-5, rtol=1e-5)


def test_an_encoder_that_packs_its_texts_shares_prefixes_too():
    encoder = encoder_of(make_decoder("qwen3_sliding"))
    with torch.no_grad():
        want = read(encoder, True)
        enable_packing(encoder, "on")
        torch.testing.assert_close(read(encoder, True), want, atol=1e-5, rtol=1e-5)


def test_what_cannot_share_a_prefix_says_so():
    causal = make_decoder("llama")
    encoder = encoder_of(causal)
    causal.config.layer_types = ["linear_attention", "full_attention"] * 2
    with pytest.raises(ConfigError, match=r"layers of linear_attention.*share_prefix=false"):
        SharedPrefixReader(encoder, True)
    SharedPrefixReader(encoder, False)


def test_a_model_that_sees_what_follows_is_refused():
    with pytest.raises(ConfigError, match="see those that follow"):
        check_causal(FAMILIES["bert"]().eval(), "some-bert")
    check_causal(make_decoder("gemma3").model, "some-gemma")


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3_sliding", "smollm3"])
def test_kept_states_of_frozen_layers_change_nothing(family, share, tmp_path, monkeypatch):
    """They are computed once: the second reading runs the layers above alone."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    encoder = encoder_of(make_decoder(family), budget=60)
    lora.apply(encoder, lora.Config(layers=2, rank=2))
    encoder.train()
    direction = torch.linspace(-1, 1, 32)
    plain = read(encoder, share)
    want = gradients(encoder, plain @ direction)
    reader = SharedPrefixReader(encoder, share, KeepOptions(1.0, "fp32"))
    ran, told = [], []
    _, stack = find_layer_stack(encoder.model)
    stack[0].register_forward_hook(lambda *args: ran.append(1))
    for again in (False, True, True):
        ran.clear()
        trees = reader.plan(PREFIXES, ENDS, LEFT, RIGHT)
        states = reader.read(trees, True, lambda kept, sizes: told.append((kept, sum(sizes))))
        torch.testing.assert_close(states, plain, atol=1e-5, rtol=1e-5)
        assert bool(ran) is not again
        for name, gradient in gradients(encoder, states @ direction).items():
            torch.testing.assert_close(gradient, want[name], atol=1e-5, rtol=1e-4)
    assert told[1:] == [(reader.kept, told[0][1])] * 2
    assert told[0][0] is None
    # Others are no part of what is kept, and neither is what there is no room for.
    other = reader.plan(PREFIXES, ENDS, LEFT, RIGHT.flip(0))
    assert not any(reader.kept.has(key) for key in other.keys if key not in trees.keys)
    none = SharedPrefixReader(encoder, share, KeepOptions(1e-6, "fp32"))
    none.read(none.plan(PREFIXES, ENDS, LEFT, RIGHT), True)
    assert not any(none.kept.has(key) for key in trees.keys)


def test_of_a_frozen_model_the_states_that_are_read_are_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    encoder = encoder_of(make_decoder("gemma2"))
    frozen.apply(encoder, frozen.Config())
    plain = read(encoder, True)
    reader = SharedPrefixReader(encoder, True, KeepOptions(1.0, "fp16"))
    for _ in range(2):
        trees = reader.plan(PREFIXES, ENDS, LEFT, RIGHT)
        torch.testing.assert_close(reader.read(trees, True), plain, atol=5e-3, rtol=5e-3)
    assert reader.kept._used == len(LEFT) * 32 * 2
