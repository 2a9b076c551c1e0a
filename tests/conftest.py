"""A made-up shop and a tiny random encoder, both as a user would have them: files."""

import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from recsys.testing.shop import (
    make_shop_words,
    save_encoder,
    write_decoder,
    write_encoder,
    write_shop,
)

# Nothing leaves the machine: `tracking.wandb: auto` means off, unless a test says otherwise.
os.environ["WANDB_MODE"] = "disabled"

# Side by side, each process has one core, and so have the commands that it starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory):
    """A language model with its head, whose tokens are words."""
    return write_decoder(tmp_path_factory.mktemp("decoder"))


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
    return save_encoder(folder, raw, len(words))


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Path:
    """30 items; every user likes one colour, so that the text tells what comes next."""
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def shop_base(shop, tiny_bert):
    """What a user types to run on the shop with the tiny encoder, but for where the run goes."""
    return make_shop_words(shop, tiny_bert)


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
