"""SASRec on ids beside RecBole's on ml-100k: same events, same split, same settings, same metric.

Both train on the latest ratings of each user, so many that every position of what is left fits
into one history: then both see the same pairs of a history and its next item in an epoch, RecBole
as a sequence each, ours as the positions of one pass. The last item is the test case, the one
before it the validation case, which picks the epoch on both sides. RecBole hands over where each
test target stands among all items; both sides' figures come from there, by the package's metric.
Nothing is masked, as RecBole does not.

Equal: width, layers, heads, inner width, dropout, learning rate (Adam, constant, no decay, no
clipping), targets of a step (RecBole counts sequences, ours users: theirs is that many users times
the mean number of targets), epochs, softmax over all items. Not equal, as each side's own: norms
before (ours) or after the blocks (RecBole), spread of the first weights.

Usage: RECBOLE_PYTHON=PYTHON python benchmarks/quality/sasrec.py DATA [seeds=3] [epochs=10]
       [history=20] [name=sasrec]

DATA is the folder that holds `ml-100k`, PYTHON the interpreter of `sasrec_peer.py`. Writes
NAME.json and NAME.md beside this file; a seed and side that NAME.json holds is not trained again.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys.runs.result_file import read_result

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SIDES = {"recsys": "recsys", "recbole": "RecBole 1.2.1"}
SHARED = {
    "layers": 2,
    "heads": 2,
    "width": 64,
    "dropout": 0.2,
    "lr": 0.001,
    "users": 16,
    "threads": 1,
}
"""Settings of both sides; `users` of a step."""
OWN = {
    "recsys": {"hr@10": "hr@10", "ndcg@10": "ndcg@10"},
    "recbole": {"hr@10": "hit@10", "ndcg@10": "ndcg@10"},
}
"""What each side calls the metrics that it gives itself."""
KS = (10, 20)
DEFAULTS = {"seeds": 3, "epochs": 10, "history": 20}


def latest(path: Path, count: int) -> pl.DataFrame:
    """The latest `count` ratings of each user, `time` counted from 1, so that none are equal.

    Times of ml-100k repeat; ties go by the order of the file, and each side would otherwise
    break them in its own way.
    """
    frame = pl.read_csv(path, separator="\t", infer_schema=False)
    frame = frame.rename({name: name.partition(":")[0] for name in frame.columns})
    frame = frame.with_columns(pl.col("timestamp").cast(pl.Int64)).sort(
        "user_id", "timestamp", maintain_order=True
    )
    frame = frame.group_by("user_id", maintain_order=True).tail(count)
    order = pl.int_range(1, pl.len() + 1).over("user_id").alias("time")
    return frame.select("user_id", "item_id", order)


def prepare(events: pl.DataFrame, folder: Path) -> None:
    """Writes the events as each side reads them."""
    (folder / "short").mkdir()
    events.rename(
        {"user_id": "user_id:token", "item_id": "item_id:token", "time": "timestamp:float"}
    ).write_csv(folder / "short" / "short.inter", separator="\t")
    events.write_csv(folder / "events.csv")
    items = events.select(pl.col("item_id").unique(maintain_order=True))
    items.with_columns(name="item " + pl.col("item_id")).write_csv(folder / "items.csv")


def settings(events: pl.DataFrame, history: int, epochs: int) -> dict[str, Any]:
    """What both sides are told; `batch` is what a step of `users` holds on average."""
    # Of a user's events the last two are held out, and the first has nothing before it.
    targets = events.group_by("user_id").len()["len"] - 3
    mean = float(targets.mean())  # type: ignore[arg-type]
    return {**SHARED, "history": history, "epochs": epochs, "batch": round(SHARED["users"] * mean)}


def words(asked: Mapping[str, Any], folder: Path) -> list[str]:
    """Our side's words on the command line."""
    return [
        "experiment=sasrec",
        f"seed={asked['seed']}",
        f"output={folder / 'runs'}",
        "data.source=tables",
        f"data.source.interactions={folder / 'events.csv'}",
        f"data.source.items={folder / 'items.csv'}",
        "data.source.user=user_id",
        "data.source.item=item_id",
        "data.source.time=time",
        "data.source.item_text='{name}'",
        "data.split=leave_one_out",
        "data.queries=all",
        f"data.max_history={asked['history']}",
        f"architecture.layers={asked['layers']}",
        f"architecture.attention_heads={asked['heads']}",
        f"architecture.width={asked['width']}",
        f"architecture.dropout={asked['dropout']}",
        "objective.over=catalog",
        f"optimizer.head_lr={asked['lr']}",
        "optimizer.schedule=constant",
        "optimizer.warmup=0",
        "optimizer.clip=0",
        f"trainer.epochs={asked['epochs']}",
        "trainer.patience=null",
        f"trainer.batch_size={asked['users']}",
        "trainer.accelerator=cpu",
        f"trainer.threads={asked['threads']}",
        f"evaluation.k=[{','.join(map(str, KS))}]",
        "evaluation.mask_history=false",
        "tracking.wandb=off",
    ]


def ours(asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Our side in this process, its training timed from the first step to the last validation."""
    import lightning.pytorch as lp

    from recsys.fit import __main__ as fit

    spent: list[float] = []
    inner = lp.Trainer.fit

    def timed(self: lp.Trainer, *given: Any, **named: Any) -> None:  # noqa: ANN401
        wall, cpu = time.perf_counter(), time.process_time()
        inner(self, *given, **named)
        spent.extend([time.perf_counter() - wall, time.process_time() - cpu])

    lp.Trainer.fit = timed  # type: ignore[method-assign]
    if fit.main(words(asked, folder)):
        raise SystemExit("our side failed; its sentence stands above")
    run = max((folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    result = read_result(run)
    cases = pl.read_parquet(run / "cases.parquet")
    return {
        "wall": spent[0],
        "cpu": spent[1],
        "parameters": result["cost"]["trained_parameters"],
        "items": result["protocol"]["catalog"],
        "own": {name: result["test"][name] for name in ("hr@10", "ndcg@10")},
        "popularity": {name: result["floors"]["popularity"][name] for name in result["test"]},
        "cases": {
            "user": cases["user"].to_list(),
            "target": cases["target"].to_list(),
            "greater": (cases["rank"] - 1).to_list(),
            "equal": cases["ties"].to_list(),
        },
    }


def side(name: str, asked: Mapping[str, Any], folder: Path, python: str) -> dict[str, Any]:
    """Trains one side in a process of its own."""
    told, out = folder / "settings.json", folder / "out.json"
    told.write_text(json.dumps(asked))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(asked["threads"]),
        "RECSYS_CACHE": str(folder / "cache"),
    }
    if name == "recbole":
        command = [python, str(HERE / "sasrec_peer.py"), str(told), str(out)]
    else:
        environment["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, str(Path(__file__).resolve()), "--ours", str(told), str(out)]
    subprocess.run(command, env=environment, check=True, cwd=folder)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def quality(cases: Mapping[str, list[Any]]) -> dict[str, float]:
    """The package's metrics from where the targets stand."""
    import torch

    from recsys.metrics.functional import compute_from_counts

    greater, equal = torch.tensor(cases["greater"]), torch.tensor(cases["equal"])
    return {
        name: float(value.double().mean())
        for name, value in compute_from_counts(greater, equal, KS).items()
    }


def check(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    """Refuses sides that did not rank the same cases among as many items."""
    pairs = [
        sorted(zip(each["cases"]["user"], each["cases"]["target"], strict=True))
        for each in (left, right)
    ]
    if pairs[0] != pairs[1] or left["items"] != right["items"]:
        raise SystemExit("the two sides ranked other cases or other items")


def measure(data: Path, seeds: int, epochs: int, history: int, kept: Path) -> dict[str, Any]:
    """All seeds of both sides in turn; each is kept when it is done."""
    python = os.environ.get("RECBOLE_PYTHON", "")
    events = latest(data / "ml-100k" / "ml-100k.inter", history + 2)
    common = settings(events, history, epochs)
    machine = {"processor": platform.processor() or platform.machine(), "python": sys.version[:6]}
    fresh = {"settings": common, "events": events.height, "machine": machine, "runs": {}}
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else fresh
    if found["settings"] != common:
        raise SystemExit(f"{kept} holds other settings; remove it or give another name=")
    for seed in range(seeds):
        for name in SIDES:
            if f"{name}-{seed}" in found["runs"]:
                continue
            if name == "recbole" and not python:
                raise SystemExit("set RECBOLE_PYTHON; see benchmarks/speed/recbole_peer.py")
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                prepare(events, folder)
                asked = {**common, "seed": seed, "folder": place}
                done = side(name, asked, folder, python)
            done["metrics"] = quality(done["cases"])
            found["runs"][f"{name}-{seed}"] = done
            kept.write_text(json.dumps(found, separators=(",", ":")) + "\n")
            print(f"{name} seed {seed}: {done['metrics']} {done['cpu'] / epochs:.1f} s", flush=True)
        check(found["runs"][f"recsys-{seed}"], found["runs"][f"recbole-{seed}"])
    return found


def page(found: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    asked = found["settings"]
    seeds = sorted({int(key.rpartition("-")[2]) for key in found["runs"]})
    first = found["runs"]["recbole-0"]
    head = ["side", "HR@10", "nDCG@10", "HR@20", "MRR", "wall s an epoch", "CPU s an epoch"]
    names = ["hr@10", "ndcg@10", "hr@20", "mrr"]
    lines = [
        "# SASRec on ids beside RecBole's, ml-100k",
        "",
        f"The latest {asked['history'] + 2} ratings of each of {len(first['cases']['user'])} "
        f"users, {found['events']:,} events, {first['items']:,} films; leave-one-out; the whole "
        f"catalog is ranked, nothing masked. {asked['epochs']} epochs, {len(seeds)} seeds, "
        f"{asked['layers']} layers, {asked['heads']} heads, width {asked['width']}, dropout "
        f"{asked['dropout']}, learning rate {asked['lr']}, {first['sequences']:,} targets an "
        f"epoch, {asked['batch']} a step, softmax over all items, {asked['threads']} thread. The "
        "best epoch on validation is tested. Percent, mean and standard deviation over seeds; "
        "seconds are medians and hold the validation of each epoch. The JSON file beside this one "
        "has where every target stands.",
        "",
        "| " + " | ".join([*head, "parameters"]) + " |",
        "|---|" + "---:|" * len(head),
    ]
    for name, shown in SIDES.items():
        runs = [found["runs"][f"{name}-{seed}"] for seed in seeds]
        cells = [_spread([100 * run["metrics"][metric] for run in runs]) for metric in names]
        cells += [
            f"{statistics.median(run[clock] / asked['epochs'] for run in runs):.2f}"
            for clock in ("wall", "cpu")
        ]
        lines.append(f"| {shown} | " + " | ".join([*cells, f"{runs[0]['parameters']:,}"]) + " |")
    floor = found["runs"]["recsys-0"]["popularity"]
    cells = [f"{100 * floor[metric]:.2f}" for metric in names]
    lines.append("| popularity | " + " | ".join([*cells, "-", "-", "-"]) + " |")
    gaps = [
        abs(run["metrics"][metric] - run["own"][own])
        for key, run in found["runs"].items()
        for metric, own in OWN[key.rpartition("-")[0]].items()
    ]
    lines += ["", f"Each side's own figures for its runs agree with these to {max(gaps):.1e}."]
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def main(argv: list[str]) -> int:
    """Measures what is missing and writes the page."""
    if argv[:1] == ["--ours"] and len(argv) == 3:
        asked = json.loads(Path(argv[1]).read_text())
        Path(argv[2]).write_text(json.dumps(ours(asked, Path(asked["folder"]))))
        return 0
    given = dict(word.partition("=")[::2] for word in argv[1:])
    known = {*DEFAULTS, "name"}
    if not argv or not (Path(argv[0]) / "ml-100k").is_dir() or set(given) - known:
        print(__doc__)
        return 2
    name = given.get("name", "sasrec")
    numbers = {key: int(given.get(key, usual)) for key, usual in DEFAULTS.items()}
    found = measure(Path(argv[0]).resolve(), **numbers, kept=HERE / f"{name}.json")
    (HERE / f"{name}.md").write_text(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
