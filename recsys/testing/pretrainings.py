"""What every way to pretrain keeps: neither held-out events nor a stop change the encoder."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from recsys.config.compose import compose_pretraining
from recsys.encoders.pretrained.load import load_encoder
from recsys.pretrain.command import find_pretraining, pretrain
from recsys.pretrain.module import PretrainingModule
from recsys.runs.result_file import read_result
from recsys.runtime.files import ENCODER_FOLDER
from recsys.runtime.signals import Interrupted
from recsys.testing.contract import Contract
from recsys.testing.shop import write_encoder
from recsys.types import Loss, Ragged, TextBatch


class PretrainingContract(Contract):
    """Inherit it and name the `choice`, with the `settings` that it needs."""

    @pytest.fixture(autouse=True)
    def _hide(self, _prepare: None, tmp_path: Path) -> None:
        """An encoder whose tokenizer has a mask token, as one for texts may need."""
        encoder = tmp_path / "with_mask"
        encoder.mkdir()
        write_encoder(encoder, ("[MASK]",))
        kept = [word for word in self.words if not word.startswith("encoder.model=")]
        self.words = [*kept, f"encoder.model={encoder}", "trainer.batch_size=8"]
        self.words += ["trainer.threads=1", "tracking.wandb=off", f"pretraining={self.choice}"]
        self.words += [f"pretraining.{word}" for word in self.settings]

    def pretrain(self, *words: str) -> Path:
        """The folder of a pretraining with these further words."""
        return pretrain(compose_pretraining([*self.words, *words]))

    def test_the_loss_of_what_is_held_out_falls(self) -> None:
        """And what is left is what transformers loads, and what a run loads by its name."""
        folder = self.pretrain("trainer.epochs=4", "pretraining.val_share=0.2")
        found = read_result(folder)["validation"]
        assert found["best"] < found["start"]
        inside = folder / ENCODER_FOLDER
        tokens = Ragged(torch.arange(4, 12), (3, 5))
        with torch.no_grad():
            states = load_encoder(str(folder), pooling="auto", max_length=32).eval()(tokens)
            assert torch.equal(
                states, load_encoder(str(inside), pooling="auto", max_length=32).eval()(tokens)
            )
        own = AutoModel.from_pretrained(inside, add_pooling_layer=False).state_dict()
        loaded = load_encoder(str(folder), pooling="auto", max_length=32).model.state_dict()
        assert {k: v for k, v in own.items() if not torch.equal(v, loaded[k])} == {}

    @pytest.mark.parametrize("split", ["leave_one_out", "time"])
    def test_held_out_events_change_no_byte(self, tmp_path: Path, split: str) -> None:
        """All of them are rewritten: other items, of the same users at the same times."""
        own = ["trainer.max_steps=6", f"data.split={split}"]
        (events,) = (w.partition("=")[2] for w in self.words if w.startswith("data.source.inter"))
        before = read_files(self.pretrain(*own) / ENCODER_FOLDER)
        other = tmp_path / "other.csv"
        other.write_text(rewrite_held_out(Path(events).read_text(), split))
        after = self.pretrain(*own, f"data.source.interactions={other}")
        assert read_files(after / ENCODER_FOLDER) == before
        changed = self.pretrain(*own, "seed=1")
        assert read_files(changed / ENCODER_FOLDER) != before

    def test_a_stopped_one_ends_as_if_it_had_not_been(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a signal within an epoch; dropout and what is drawn included."""
        own = ["tuning=lora", "trainer.epochs=2", "trainer.log_every=1"]
        whole = self.pretrain(*own)
        original, calls = PretrainingModule.compute_loss, []

        def compute_loss(module: PretrainingModule, batch: TextBatch) -> Loss:
            calls.append(module.training)
            if sum(calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(module, batch)

        with monkeypatch.context() as patch:
            patch.setattr(PretrainingModule, "compute_loss", compute_loss)
            with pytest.raises(Interrupted):
                self.pretrain(*own)
        (output,) = (w.partition("=")[2] for w in self.words if w.startswith("output="))
        stopped = pretrain(*find_pretraining(["resume=last", f"output={output}"]))
        assert stopped != whole
        assert read_result(stopped)["cost"]["resumes"] == 1
        assert read_files(stopped / ENCODER_FOLDER) == read_files(whole / ENCODER_FOLDER)
        for name in ("texts", "tokens", "train_flops"):
            assert read_result(stopped)["cost"][name] == read_result(whole)["cost"][name] > 0


def read_files(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a folder, by name."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def rewrite_held_out(events: str, split: str) -> str:
    """The shop's events with other items in what a split holds out.

    Args:
        events: As `write_shop` writes them: the five of a user follow one another in time, and
            users follow one another.
        split: leave_one_out: the last two of each user; time: the last fifth of all.
    """
    header, *rows = events.splitlines()
    held = range(len(rows) * 4 // 5, len(rows)) if split == "time" else range(len(rows))
    rng, out = random.Random(1), list(rows)
    for at in held:
        if split == "time" or at % 5 > 2:
            user, _, time, stars = rows[at].split(",")
            out[at] = f"{user},0{rng.randrange(30):02d},{time},{stars}"
    assert out != rows
    return "\n".join([header, *out]) + "\n"
