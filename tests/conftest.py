"""A made-up shop and a tiny random encoder, both as a user would have them: files."""

import os
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

# Nothing leaves the machine: `tracking.wandb: auto` means off, unless a test says otherwise.
os.environ["WANDB_MODE"] = "disabled"

# Side by side, each process has one core, and so have the commands that it starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

THINGS = ["lamp", "chair", "table", "shelf", "mirror"]
COLOURS = ["red", "blue", "green", "black", "white", "brown"]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *THINGS, *COLOURS]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return _encoder(folder, raw, len(words))


@pytest.fixture(scope="session")
def tiny_bytes(tmp_path_factory):
    """An encoder of any script: its tokens are the bytes of UTF-8."""
    folder = tmp_path_factory.mktemp("bytes")
    words = ["[PAD]", "[CLS]", "[SEP]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return _encoder(folder, raw, len(words))


def _encoder(folder: Path, raw: Tokenizer, size: int) -> Path:
    """A tiny random BERT with its tokenizer, as files."""
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    if raw.token_to_id("[UNK]") is not None:
        names["unk_token"] = "[UNK]"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Path:
    """30 items; every user likes one colour, so that the text tells what comes next."""
    folder = tmp_path_factory.mktemp("shop")
    items = [
        (f"0{i:02d}", f"{c} {t}")
        for i, (c, t) in enumerate((c, t) for c in COLOURS for t in THINGS)
    ]
    (folder / "items.csv").write_text("what,name\n" + "".join(f"{i},{n}\n" for i, n in items))
    rng = random.Random(0)
    rows = []
    for user in range(40):
        own = items[5 * (user % 6) : 5 * (user % 6) + 5]
        for time, (item, _) in enumerate(rng.sample(own, 5)):
            stars = rng.randint(1, 5)
            rows.append(f"u{user},{item},{1_600_000_000 + 100 * user + time},{stars}\n")
    (folder / "events.csv").write_text("who,what,when,stars\n" + "".join(rows))
    return folder


@pytest.fixture(scope="session")
def shop_base(shop, tiny_bert):
    """What a user types to run on the shop with the tiny encoder, but for where the run goes."""
    return [
        "data.source=tables",
        f"data.source.interactions={shop / 'events.csv'}",
        f"data.source.items={shop / 'items.csv'}",
        "data.source.user=who",
        "data.source.item=what",
        "data.source.time=when",
        "data.source.item_text='{name}'",
        "data.split=leave_one_out",
        f"encoder.model={tiny_bert}",
        "encoder.max_length=32",
        "trainer.accelerator=cpu",
        "trainer.epochs=2",
        "trainer.batch_size=16",
        "optimizer.lr=0.01",
    ]


@pytest.fixture
def shop_words(shop_base, tmp_path):
    """What a user types to run on the shop with the tiny encoder."""
    return [*shop_base, f"output={tmp_path / 'runs'}"]


@pytest.fixture
def situated_words(shop, shop_words, tmp_path):
    """The shop, whose events also have a device, and whose items have tags."""
    header, *rows = (shop / "events.csv").read_text().splitlines()
    # The last two of a user's five events are held out; only they know of a watch.
    devices = ["phone", "", "desk", "phone", "watch"]
    events = [f"{row},{devices[i % 5]}" for i, row in enumerate(rows)]
    (tmp_path / "events.csv").write_text("\n".join([f"{header},device", *events]) + "\n")
    header, *rows = (shop / "items.csv").read_text().splitlines()
    kinds = ["wood|home", "home", "", "wood|wood", "metal"]
    made = ["wood", "here"]
    items = [f"{row},{kinds[i % 5]},{made[i % 2]},{i + 0.5}" for i, row in enumerate(rows)]
    (tmp_path / "items.csv").write_text("\n".join([f"{header},kind,made,price", *items]) + "\n")
    own = [w for w in shop_words if not w.startswith(("data.source.inter", "data.source.items"))]
    return [
        *own,
        f"data.source.interactions={tmp_path / 'events.csv'}",
        f"data.source.items={tmp_path / 'items.csv'}",
    ]
