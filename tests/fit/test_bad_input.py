"""What a user gets wrong: one sentence with the place and the remedy, exit code 2, no traceback."""

import shutil

import pytest
import torch

from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.fit.command import resolve
from recsys.recommend.__main__ import main as recommend

ITEMS = "what,name\n001,red lamp\n002,red chair\n003,blue lamp\n004,blue chair\n"
EVENTS = "who,what,when,stars\n" + "".join(
    f"u{u},00{i},{1_600_000_000 + 10 * u + i},{i}\n" for u in range(6) for i in range(1, 5)
)


def replaced(text, number, line):
    lines = text.splitlines()
    lines[number] = line
    return "\n".join(lines) + "\n"


CASES = {
    "missing file": (None, ITEMS, [], ["events.csv", "does not exist"]),
    "missing column": (EVENTS.replace("who,", "whom,"), ITEMS, [], ["'who'", "whom"]),
    "unknown item": (replaced(EVENTS, 3, "u0,999,1600000003,3"), ITEMS, [], ["999", "u0"]),
    "empty text": (EVENTS, replaced(ITEMS, 2, "002,"), [], ["002", "text"]),
    "duplicate item": (EVENTS, ITEMS + "001,again\n", [], ["001", "again"]),
    "unparsable time": (replaced(EVENTS, 2, "u0,002,yesterday,3"), ITEMS, [], ["yesterday"]),
    "empty file": ("who,what,when,stars\n", ITEMS, [], ["events.csv"]),
    "nobody with three events": (
        "who,what,when,stars\nu0,001,1600000000,1\nu1,002,1600000001,2\n",
        ITEMS,
        [],
        ["leave_one_out", "no positive event"],
    ),
    "nothing above the rating": (EVENTS, ITEMS, ["data.positive_from=9"], ["positive"]),
    "no history": (EVENTS, ITEMS, ["data.max_history=0"], ["data.max_history", "1 or more"]),
    "history too long for the encoder": (
        EVENTS,
        ITEMS,
        ["architecture.user=text", "encoder.max_length=4000"],
        ["encoder.max_length", "64"],
    ),
    "no such cut-off": (EVENTS, ITEMS, ["evaluation.k=[0]"], ["0"]),
    "one beta": (EVENTS, ITEMS, ["optimizer.betas=[0.9]"], ["optimizer.betas"]),
    "unknown template column": (EVENTS, ITEMS, ["data.source.item_text='{titel}'"], ["titel"]),
    "a time split without times": (
        EVENTS,
        ITEMS,
        ["data.source.time=''", "data.split=time"],
        ["data.split=leave_one_out"],
    ),
    "fp16 on a CPU": (
        EVENTS,
        ITEMS,
        ["trainer.precision=fp16-mixed"],
        ["trainer.precision", "GPU"],
    ),
    "labels without any that is not liked": (
        # Every user liked all that is held out, so that no list has both classes.
        EVENTS,
        ITEMS,
        ["evaluation.protocol=labels", "evaluation.monitor=auc"],
        ["protocol=labels", "data.positive_from"],
    ),
    "wrong checksum": (EVENTS, ITEMS, ["encoder.sha256=00"], ["sha256"]),
}


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_bert, capsys):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))

    def run(events, items, words):
        if events is not None:
            (tmp_path / "events.csv").write_text(events)
        (tmp_path / "items.csv").write_text(items)
        code = main(
            [
                "data.source=tables",
                f"data.source.interactions={tmp_path / 'events.csv'}",
                f"data.source.items={tmp_path / 'items.csv'}",
                "data.source.user=who",
                "data.source.item=what",
                "data.source.time=when",
                "data.source.rating=stars",
                "data.source.item_text='{name}'",
                "data.split=leave_one_out",
                f"encoder.model={tiny_bert}",
                "encoder.max_length=32",
                "trainer.accelerator=cpu",
                "trainer.epochs=1",
                "tracking.wandb=off",
                f"output={tmp_path / 'runs'}",
                *words,
            ]
        )
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", CASES)
def test_one_sentence(run, tmp_path, name):
    events, items, words, parts = CASES[name]
    code, error = run(events, items, words)
    assert code == 2
    assert error.splitlines()[-1].startswith("error: ")
    assert error.count("error: ") == 1
    assert all(part in error for part in parts), error
    assert not list(tmp_path.glob("runs/*/result.json"))


@pytest.mark.parametrize(
    "words",
    [
        ["architecture=ease", "architecture.l2=null"],
        ["architecture=popularity", "evaluation.test=false"],
        ["architecture=two_tower", "tuning=frozen"],
    ],
)
def test_nothing_is_chosen_by_cases_that_validation_has_not(run, tmp_path, words):
    code, error = run(EVENTS, ITEMS, [*words, "evaluation.monitor=warm/ndcg@10"])
    assert code == 2
    assert "of 6 validation cases none is warm; set evaluation.monitor=ndcg@10" in error
    assert not (tmp_path / "runs").exists()


def test_a_monitor_without_cases_that_decides_nothing_is_no_error(run):
    assert run(EVENTS, ITEMS, ["architecture=ease", "evaluation.monitor=warm/ndcg@10"])[0] == 0


@pytest.mark.parametrize(
    ("there", "words", "parts"),
    [
        (0, ["trainer.accelerator=gpu"], ["trainer.accelerator=gpu", "no GPU"]),
        (2, ["trainer.accelerator=gpu", "trainer.devices=3"], ["trainer.devices=3", "to 2 or"]),
        (2, ["trainer.accelerator=auto", "trainer.devices=3"], ["trainer.devices=3", "to 2 or"]),
    ],
)
def test_more_gpus_than_there_are(monkeypatch, there, words, parts):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        resolve(compose(words))
    assert all(part in str(caught.value) for part in parts), caught.value


def test_blanks_between_ids_and_a_damaged_result(run, tmp_path, capsys):
    assert run(EVENTS, ITEMS, ["architecture=popularity"])[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert recommend([f"run={folder}", "history= 001, 002 ", "k=1"]) == 0
    (folder / "result.json").write_text('{"data": ')
    assert recommend([f"run={folder}", "history=001"]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert "result.json is damaged" in error


def test_the_same_files_without_a_mistake_run(run):
    assert run(EVENTS, ITEMS, [])[0] == 0


def test_an_encoder_without_weights(run, tmp_path, tiny_bert):
    folder = tmp_path / "no_weights"
    shutil.copytree(tiny_bert, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    code, error = run(EVENTS, ITEMS, [f"encoder.model={folder}"])
    assert code == 2
    assert "no_weights" in error
    assert "model.safetensors" in error


def test_a_user_with_one_event_trains_nothing_and_stops_nothing(run):
    code, _ = run(EVENTS + "lonely,001,1600000000,1\n", ITEMS, [])
    assert code == 0
