"""Every command of README and docs/ runs, page by page and in their order.

What a page is about stays as it is typed; words that are appended make it small: a shop of 200
items, a tiny encoder, two steps. A block that cannot run here says why in a comment before it.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path

import pytest

import recsys
from recsys.clean import __main__ as clean
from recsys.compare import __main__ as compare
from recsys.compress import __main__ as compress
from recsys.data import __main__ as data
from recsys.explain import __main__ as explain
from recsys.export import __main__ as export
from recsys.fit import __main__ as fit
from recsys.forget import __main__ as forget
from recsys.pretrain import __main__ as pretrain
from recsys.recommend import __main__ as recommend
from recsys.recommender.trainable import TrainableRecommender
from recsys.refresh import __main__ as refresh
from recsys.sweep import __main__ as sweep
from recsys.testing.shop import COLOURS, THINGS
from tests.docs.pages import ROOT, blocks, commands, files, name_of, pages
from tests.encoders.decoders import write_decoder

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SHOP = (
    *("data.source=tables", "data.source.interactions=events.csv", "data.source.items=items.csv"),
    *("data.source.user=who", "data.source.item=what", "data.source.time=when"),
    *("data.source.item_text='{title}'", "data.split=leave_one_out"),
)
SMALL = (
    *("trainer.accelerator=cpu", "trainer.max_steps=2", "trainer.batch_size=16"),
    *("encoder.max_length=32", "encoder.model=my_encoder"),
)
FEW = ("methods=lora,frozen", "trials=1", "final_seeds=1", "workers=1")
ENCODER = "encoder.model=pretrained/NAME"
TOOLS = {"pytest": "dev", "mkdocs": "docs"}
"""Programs of an extra, which tests do not start."""
SLOW = (
    "docs/sweeps.md",
    "README.md",
    "docs/reliability.md",
    "docs/own-choice.md",
    "docs/export.md",
    "docs/chapters/01_which_tuning.py",
)


@pytest.fixture
def place(tmp_path, tiny_bert, monkeypatch):
    """A folder with the files that the pages speak of: events, items, an encoder."""
    rng = random.Random(0)
    words = product(COLOURS, COLOURS, COLOURS, THINGS)  # each title once: equal ones would tie
    titles = rng.sample([" ".join(each) for each in words], 200)
    items = [(i, title, rng.choice(["Holm", "Norr"])) for i, title in enumerate(titles, 1)]
    rows = [f"{i},{title},{brand}\n" for i, title, brand in items]
    (tmp_path / "items.csv").write_text("what,title,brand\n" + "".join(rows))
    events = []
    for user in range(180, 220):
        for step, item in enumerate(rng.sample(range(1, 201), 6)):
            device = rng.choice(["phone", "desk"])
            events.append(f"{user},{item},{1_700_000_000 + 7_200 * step + user},{device}\n")
    (tmp_path / "events.csv").write_text("who,what,when,device\n" + "".join(events))
    later = [(user, rng.randint(1, 200), step) for step in range(4) for user in range(180, 230)]
    rows = [f"{user},{item},{1_701_000_000 + 60 * step + user}\n" for user, item, step in later]
    (tmp_path / "newer.csv").write_text("who,what,when\n" + "".join(rows))
    (tmp_path / "new.csv").write_text("item,title,brand\nn1,red lamp,Holm\n")
    shutil.copytree(tiny_bert, tmp_path / "my_encoder")
    write_decoder(tmp_path / "my_decoder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def small(words):
    """The words, and others that make a run small; what the page sets of its data stays."""
    keys = {word.partition("=")[0] for word in words}
    own = [] if "data.source" in keys else SHOP
    more = [word for word in SMALL if word.partition("=")[0] not in keys]
    return [*words, *own, *more]


def fit_command(words):
    """Runs `fit`; several seeds are two runs in a folder together, each in this process."""
    if words[0].startswith("resume="):
        return fit.main(words)
    if ENCODER in words:
        words = [*(w for w in words if w != ENCODER), f"encoder.model={newest_pretraining()}"]
    words = small(words)
    seeds = [word for word in words if word.startswith("seeds=")]
    if "trainer.devices=2" in words:
        command = [sys.executable, "-m", "recsys.fit", *words]
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode
    if not seeds:
        return fit.main(words)
    words = [word for word in words if word not in seeds]
    folder = f"output=runs/{words[0].partition('=')[2]}-seeds"
    return max(fit.main([*words, f"seed={seed}", folder]) for seed in (0, 1))


def newest_pretraining():
    return max(path.parent for path in Path("pretrained").glob("*/pretraining.yaml"))


def pretrain_command(words):
    if words[0].startswith("resume="):
        return pretrain.main(words)
    return pretrain.main(words if "--help" in words else small(words))


def sweep_command(words):
    return sweep.main(words if words[0] == "status" else [*small(words), *FEW])


def compare_command(words):
    """`runs/A` and `runs/B` stand for any two runs."""
    some = [str(path.parent) for path in sorted(Path("runs").rglob("result.json"))]
    meant = {"runs/A": some[0], "runs/B": some[-1]}
    return compare.main([meant.get(word, word) for word in words])


def compress_command(words):
    """An encoder of three layers and width 32 has other sizes than a pretrained one."""
    meant = {"layers=3": "layers=2", "width=128": "width=16"}
    return compress.main([meant.get(word, word) for word in words])


MODULES = {
    "recsys.fit": fit_command,
    "recsys.pretrain": pretrain_command,
    "recsys.sweep": sweep_command,
    "recsys.compare": compare_command,
    "recsys.recommend": recommend.main,
    "recsys.explain": explain.main,
    "recsys.compress": compress_command,
    "recsys.data": data.main,
    "recsys.clean": clean.main,
    "recsys.refresh": refresh.main,
    "recsys.forget": forget.main,
    "recsys.export": export.main,
}


def install(words):
    """`pip install -e ".[x]"`: x is an extra of the package."""
    (place,) = [word for word in words if word.startswith(".[")]
    assert place[2:-1] in EXTRAS


def stop_in_its_second_step(monkeypatch):
    """As SIGTERM would come."""
    original = TrainableRecommender.training_step

    def step(self, batch, batch_idx):
        if self.trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TrainableRecommender, "training_step", step)


def run_all(page, monkeypatch):
    for name, text in files(page).items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    todo = commands(page)
    for words, following in zip(todo, [*todo[1:], []], strict=True):
        if words[:2] == ["pip", "install"]:
            install(words)
        elif words[0] in TOOLS:
            assert any(need.startswith(words[0]) for need in EXTRAS[TOOLS[words[0]]])
        else:
            assert words[:2] == ["python", "-m"], words
            stopped = following[-1:] == ["resume=last"]
            with monkeypatch.context() as patch:
                if stopped:
                    stop_in_its_second_step(patch)
                code = MODULES[words[2]](words[3:])
            assert code == (128 + signal.SIGTERM if stopped else 0), words
    return len(todo)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if name_of(page) in SLOW else [])
        for page in pages()
        if commands(page) and page.stem != "run-folder"  # which has a test of its own
    ],
    ids=name_of,
)
def test_the_commands_of_a_page_run_in_their_order(page, place, monkeypatch):
    assert run_all(page, monkeypatch) > 0


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_says_what_it_is(page):
    """A command in a block of another kind would not run."""
    kinds = {"bash", "text", "yaml", "python"}
    assert {block.kind for block in blocks(page)} <= kinds
    for block in blocks(page):
        assert block.kind == "bash" or not block.body.startswith(("python -m", "pip install"))


def test_the_hit_rate_that_a_reader_computes_is_that_of_the_result(place, monkeypatch):
    page = ROOT / "docs" / "run-folder.md"
    run_all(page, monkeypatch)
    (result,) = Path("runs").glob("*/result.json")
    (block,) = [block for block in blocks(page) if block.kind == "python"]
    names = {}
    program = block.body.replace("<= 20", "<= 10").replace("runs/NAME", str(result.parent))
    exec(program, names)
    assert names["cases"]["ties"].sum() == 0
    assert names["hits"] == pytest.approx(json.loads(result.read_text())["test"]["hr@10"])


@pytest.mark.slow
def test_the_calls_of_the_notebook_page_run(place, monkeypatch, capsys):
    page = ROOT / "docs" / "notebook.md"
    train = recsys.train

    def train_small(*words, **keys):
        given = {word.partition("=")[0] for word in words}
        more = [word for word in (*SHOP, *SMALL) if word.partition("=")[0] not in given]
        return train(*words, *more, **keys)

    monkeypatch.setattr(recsys, "train", train_small)
    names = {}
    for block in blocks(page):
        exec(block.body, names)
    assert sorted(names["seeds"].runs) == [0, 1]
    assert names["found"].verdict in capsys.readouterr().out


def test_both_commands_of_the_set_up_stand_in_the_readme():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert (
        'pip install -e ".[quickstart]" && python -m recsys.fit experiment=lora_two_tower' in lines
    )
    assert 'pip install -e ".[dev]" && pytest -n 2' in lines
