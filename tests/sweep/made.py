"""Sweeps as a driver records them, made up in no time."""

import math
import random
from pathlib import Path

from recsys.sweep.record import SearchAxis, SweepObjective, SweepRecord, TrialRecord, sort_trials

VALIDATION = SweepObjective("validation", "validation ndcg@10", "maximize")
SECONDS = SweepObjective("cost.train_seconds", "training time", "minimize")
LR = SearchAxis("optimizer.lr", "float", True, 1e-5, 1e-2, (), ("full", "lora", "frozen"))
DECAY = SearchAxis(
    "optimizer.weight_decay", "float", False, 0.0, 0.3, (), ("full", "lora", "frozen")
)
RANK = SearchAxis("tuning.rank", "int", True, 2, 64, (), ("lora",))
AXES = (DECAY, RANK, LR)
PEAKS = {"full": (6e-5, 0.098, 0.35), "lora": (7e-4, 0.103, 0.9), "frozen": (2e-3, 0.071, 1.4)}
BEGAN = 1_700_000_000.0


def trial(method, number, value, *, state="complete", reason="", values=None, **changes):
    """One trial with few figures; `changes` set further fields."""
    fields = {
        "index": number,
        "reports": () if value is None else ((10, 0.6 * value), (20, value)),
        "figures": {},
        "seconds": 60.0,
        "began": BEGAN + 60 * number,
        "epochs": 2.0,
        "runs": (f"trials/{method}-{number}",),
        **changes,
    }
    objectives = (value,) if state == "complete" else ()
    return TrialRecord(method, number, state=state, reason=reason, values=values or {},
                 **{"objectives": objectives, **fields})  # fmt: skip


def sweep(folder, trials, *, axes=AXES, objectives=(VALIDATION,), planned=20, **changes):
    methods = tuple(dict.fromkeys(t.method for t in trials)) or ("full",)
    fields = {"methods": methods, "budget": f"{planned} trials", "name": "made", **changes}
    return SweepRecord(folder=Path(folder), axes=axes, objectives=objectives, planned=planned,
                 trials=sort_trials(trials, fields["methods"]), **fields)  # fmt: skip


def figures_of(method, values, away, value, seconds, rng):
    """What the result of such a trial says."""
    return {
        "train.loss": 2.1 + 0.4 * away**2 + values["optimizer.weight_decay"] + rng.gauss(0, 0.05),
        "validation.ndcg@10": value,
        "cost.train_seconds": seconds,
        "cost.trained_parameters": {"full": 4.4e6, "lora": 7.4e4, "frozen": 1.6e4}[method],
        "distance.tuned": max(0.1, 8 + 3 * away) * (1 - values["optimizer.weight_decay"]),
        "distance.head": 1.4 - values["optimizer.weight_decay"],
    }


def realistic(folder, count=20, two=False, tested=True):
    """Three methods with a peak each, pruned trials, divergence and a repeated loss."""
    rng, trials = random.Random(3), []
    for method, (peak, top, width) in PEAKS.items():
        median = []
        for number in range(count):
            values = {
                "optimizer.lr": 10 ** rng.uniform(-5, -2),
                "optimizer.weight_decay": rng.uniform(0, 0.3),
            }
            if method == "lora":
                values["tuning.rank"] = 2 ** rng.randint(1, 6)
            away = math.log10(values["optimizer.lr"] / peak) / width
            value = top * math.exp(-0.5 * away**2)
            value *= (
                1 - 0.5 * (values["optimizer.weight_decay"] - 0.05) ** 2 - abs(rng.gauss(0, 0.05))
            )
            reports = tuple(
                (50 * s, 0.02 + (value - 0.02) * (1 - math.exp(-s / 3))) for s in range(1, 9)
            )
            state, reason = "complete", ""
            if away > 2.2 and not two:
                state, reason = "failed", "the loss was NaN at step 120"
                reports = reports[:2]
            elif len(median) > 4 and reports[2][1] < sorted(median)[len(median) // 2] and not two:
                state, reason, reports = "pruned", "below the median at step 150", reports[:3]
            median += [reports[2][1]] if len(reports) > 2 else []
            seconds = rng.uniform(30, 60) * {"full": 3.1, "lora": 2.0, "frozen": 0.4}[method]
            if two and method == "lora":
                seconds *= 0.6 + values["tuning.rank"] / 40
            figures = figures_of(method, values, away, value, seconds, rng)
            done = state == "complete"
            trials.append(TrialRecord(
                method, number, number, state, reason, values,
                ((value, seconds) if two else (value,)) if done else (),
                () if two else reports, figures if done else {}, seconds * (1 if done else 0.4),
                BEGAN + 70 * len(trials), 8.0 if done else 3.0, (f"trials/{method}-{number:04}",),
            ))  # fmt: skip
    lost = trial("lora", count, None, state="failed", reason="the machine went down <kill -9>",
                 values={"optimizer.lr": 1e-3, "optimizer.weight_decay": 0.1,
                         "tuning.rank": 8})  # fmt: skip
    again = trial("lora", count + 1, None, state="running", values=lost.values, retry_of=count,
                  began=BEGAN + 4300)  # fmt: skip
    tests = {m: tuple({"ndcg@10": top * f, "hr@10": 2 * top * f, "mrr": 0.8 * top * f,
                       "warm/ndcg@10": top} for f in (0.95, 0.97, 0.92))
             for m, (_, top, _) in PEAKS.items()} if tested else {}  # fmt: skip
    return sweep(
        folder,
        trials if two else [*trials, lost, again],
        objectives=(VALIDATION, SECONDS) if two else (VALIDATION,),
        planned=count + (0 if two else 1),
        methods=tuple(PEAKS),
        name="lr_regularization",
        tests=tests,
        finals={m: (f"finals/{m}-0",) for m in PEAKS} if tested else {},
        notes=("One shared Sobol design for all methods.",),
        common={"data.source": "movielens", "trainer.epochs": 8, "encoder.revision": None},
    )
