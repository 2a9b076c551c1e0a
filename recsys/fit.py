"""python -m recsys.fit experiment=NAME key=value ...: compose, train, test, write the result."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.config import Run, choice_name, compose, help_text, to_yaml
from recsys.errors import ConfigError, RecsysError

if TYPE_CHECKING:
    import lightning.pytorch as lp

    from recsys.build import Assembly
    from recsys.callbacks import Best


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or 2 for a mistake of the user, told in one sentence.
    """
    words = [w for w in argv if not w.startswith("--")]
    flags = {w for w in argv if w.startswith("--")}
    try:
        if flags - {"--help", "--print-config"}:
            odd = min(flags - {"--help", "--print-config"})
            raise ConfigError(f"{odd} is not a flag; there are --help and --print-config.")
        if "--help" in flags:
            print(help_text("fit"))
            return 0
        run = compose(words)
        if "--print-config" in flags:
            print(to_yaml(run), end="")
            return 0
        fit(run)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def fit(run: Run) -> Path:
    """Trains and tests one run.

    Returns:
        The result folder.

    Raises:
        RecsysError: The configuration or the data cannot be used.
    """
    import torch

    from recsys import build, results
    from recsys.callbacks import Best
    from recsys.data.files import write_atomic

    started, cpu = time.monotonic(), time.process_time()
    hush()
    if run.trainer.threads is not None:
        torch.set_num_threads(run.trainer.threads)
    made = build.assemble(run)
    for note in made.split.notes:
        print(note)
    folder = results.new_folder(run.output, run.experiment or choice_name(run.architecture))
    write_atomic(folder / "config.yaml", to_yaml(run))
    trainable = run.architecture.trains
    table = {} if not trainable else _floors(made)
    best = Best(folder / "checkpoints" / "best.safetensors", f"val/{run.evaluation.monitor}")
    trainer = _trainer(run, folder, best)
    train_seconds = 0.0
    if trainable:
        table["zero-shot"] = _quiet_test(trainer, made)
        begun = time.monotonic()
        trainer.validate(made.recommender, made.datamodule, verbose=False)
        best.offer(trainer, made.recommender, step=0)
        if made.recommender.trained():
            trainer.fit(made.recommender, made.datamodule)
            made.recommender.load_trained(best.path)
        train_seconds = time.monotonic() - begun
    table[folder.name] = _quiet_test(trainer, made)
    cases = results.cases_frame(made.recommender.evaluator.rows, made.tables)
    trained = made.recommender.trained().values()
    result = {
        "test": table[folder.name],
        "floors": {k: v for k, v in table.items() if k != folder.name},
        "validation": {"monitor": best.monitor, "best": best.value, "step": best.step},
        "unreachable": int(cases["unreachable"].sum()),
        "cost": {
            "trained_parameters": sum(p.numel() for p in trained),
            "parameters": sum(p.numel() for p in made.recommender.parameters()),
            "train_seconds": train_seconds,
            "seconds": time.monotonic() - started,
            "cpu_seconds": time.process_time() - cpu,
            "anonymous_mb": results.peak_anonymous_mb(),
        },
        "data": {"fingerprint": made.fingerprint, "split": made.split.name},
        "versions": results.versions(),
        "code": results.commit(),
    }
    results.write(folder, result, cases)
    _show(table, run.evaluation.k[0], best)
    print(f"result: {folder}")
    return folder


def hush() -> None:
    """Turns off what libraries print that a user of this command cannot act on."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.pytorch.*")


def _floors(made: Assembly) -> dict[str, dict[str, float]]:
    """Test metrics of the baselines, over the same cases."""
    from recsys import build

    batches = made.datamodule.test_dataloader()
    return {name: build.floor(name, made.parts).evaluate(batches) for name in build.FLOORS}


def _quiet_test(trainer: lp.Trainer, made: Assembly) -> dict[str, float]:
    """Test metrics without the `test/` before their names."""
    found = trainer.test(made.recommender, made.datamodule, verbose=False)[0]
    return {name.removeprefix("test/"): float(value) for name, value in found.items()}


def _trainer(run: Run, folder: Path, best: Best) -> lp.Trainer:
    """A Trainer from typed options."""
    import lightning.pytorch as lp
    from lightning.pytorch.callbacks import Callback, EarlyStopping
    from lightning.pytorch.loggers import CSVLogger

    from recsys.callbacks import precision

    options = run.trainer
    callbacks: list[Callback] = [best]
    if options.patience is not None:
        callbacks.append(
            EarlyStopping(
                best.monitor, mode="max", patience=options.patience, check_on_train_epoch_end=False
            )
        )
    return lp.Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=precision(options.precision, options.accelerator),
        max_epochs=options.epochs,
        max_steps=-1 if options.max_steps is None else options.max_steps,
        accumulate_grad_batches=options.accumulate,
        gradient_clip_val=run.optimizer.clip or None,
        deterministic=options.deterministic,
        callbacks=callbacks,
        logger=CSVLogger(folder, name="", version="log"),
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        use_distributed_sampler=False,
    )


def _show(table: Mapping[str, Mapping[str, float]], k: int, best: Best) -> None:
    """The closing table: this run under its floors, in percent."""
    from rich.console import Console
    from rich.table import Table

    names = [f"hr@{k}", f"ndcg@{k}", "mrr", f"warm/ndcg@{k}", f"cold/ndcg@{k}"]
    out = Table(title="test, in percent")
    out.add_column("")
    for name in names:
        out.add_column(name, justify="right")
    for row, metrics in table.items():
        shown = [metrics[name] for name in names]
        out.add_row(row, *("-" if value != value else f"{100 * value:.2f}" for value in shown))
    Console().print(out)
    if best.step == 0:
        print("the best validation was before the first step: training did not help")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
