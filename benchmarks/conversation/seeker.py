"""Does saying what is wrong with a list find an item sooner than reading on?

    python benchmarks/conversation/seeker.py DATA RUNS

DATA holds the folders `ml-100k` and `amazon-instruments`; RUNS is a folder for the runs and for
what was said, outside of the project. What is compared was written down before the first run:
`seeker-plan.md`. What RUNS already has is kept. It ends as `seeker.md` and `seeker.json`, below
what `seeker-head.md` says. The first run, before words of opinion were understood, is
`seeker-first.md`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from recsys.runtime.files import write_atomic
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.seeking.contest import (
    POLICIES,
    Talk,
    count_outcomes,
    draw_targets,
    estimate,
    find_median_ranks,
    find_successes,
    hold_talk,
)
from recsys.trained.conversation.seeking.views import Views
from recsys.trained.run import TrainedRun, load

HERE = Path(__file__).resolve().parent
SEEKERS, SIZE, TURNS = 300, 5, 5
FAMILY = 0.9875
"""Level of each of the four planned intervals, so that all hold at once with 95 %."""

SETS = {
    "ml-100k": ["data.source=movielens"],
    "amazon-instruments": ["data.source=sequences", "data.train_users=2000"],
}
SMALL = ["encoder.model=package:cognition/model", "optimizer.head_lr=0.003", "trainer.epochs=2"]
MODELS = {
    "MiniLM as it is": ["experiment=zero_shot"],
    "BERT of 2 layers, LoRA": ["experiment=lora_two_tower", *SMALL],
}
CLAIMED = "amazon-instruments"
PLANNED = (("critiques", "more"), ("critiques", "random"))
PAIRS = (
    *PLANNED,
    *((policy, "more") for policy in ("critiques, new items", "plain critiques", "random")),
)


class Cell(NamedTuple):
    """A model on a data set."""

    data: str
    model: str

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.data}-{self.model.split()[0]}"


def fit(root: Path, runs: Path, cell: Cell) -> TrainedRun:
    """The run of a cell; it is fitted where it is missing."""
    folder = runs / cell.name
    if not list(folder.glob("*/result.json")):
        words = [*MODELS[cell.model], *SETS[cell.data], f"data.source.path={root / cell.data}"]
        words += ["evaluation.max_cases=500", "tracking.wandb=off", f"output={folder}"]
        folder.mkdir(parents=True, exist_ok=True)
        print("fit", cell.name, flush=True)
        with (folder / "output.log").open("w") as log:
            command = [sys.executable, "-m", "recsys.fit", *words]
            subprocess.run(command, stdout=log, stderr=log, check=True)
    return load("last", folder)


def measure(root: Path, runs: Path, cell: Cell) -> dict[str, Any]:
    """What came of all policies of a cell; one that RUNS has is kept."""
    kept = runs / f"{cell.name}.json"
    if kept.is_file():
        read: dict[str, Any] = json.loads(kept.read_text())
        return read
    model = ConversationModel(fit(root, runs, cell))
    views = Views(model)
    targets = draw_targets(model, views, SEEKERS)
    talks: dict[str, list[Talk]] = {}
    began = time.process_time()
    for policy in POLICIES:
        talks[policy] = [
            hold_talk(model, views, target, seed, policy, SIZE, TURNS)
            for seed, target in enumerate(targets)
        ]
        print(cell.name, policy, f"{time.process_time() - began:.0f} CPU s so far", flush=True)
        for target, talk in zip(targets, talks[policy], strict=True):
            assert not any(views.leaks(target, line) for line in talk.lines)
    out = {
        **cell._asdict(),
        "items": len(model.ids),
        "seekers": len(targets),
        "cpu_seconds": round(time.process_time() - began),
        "policies": {policy: summarize(of, len(model.ids)) for policy, of in talks.items()},
        "differences": [compare(talks, cell, *pair) for pair in PAIRS],
        "lines": [
            [model.texts[target], talk.found, *talk.lines]
            for target, talk in zip(targets[:20], talks["critiques"], strict=False)
        ],
    }
    write_atomic(kept, json.dumps(out, indent=1))
    return out


def summarize(talks: Sequence[Talk], size: int) -> dict[str, Any]:
    """Success by turn with its interval, median ranks, and what was understood."""
    turns = range(1, TURNS + 1)
    return {
        "success": [asdict(estimate(find_successes(talks, turn))) for turn in turns],
        "ranks": find_median_ranks(talks, size),
        "outcomes": count_outcomes(talks),
    }


def compare(
    talks: Mapping[str, Sequence[Talk]], cell: Cell, policy: str, against: str
) -> dict[str, Any]:
    """The difference of success between two policies, paired over seekers."""
    planned = cell.data == CLAIMED and (policy, against) in PLANNED
    paired = find_successes(talks[policy], TURNS) - find_successes(talks[against], TURNS)
    interval = estimate(paired, FAMILY if planned else 0.95)
    return {"policy": policy, "against": against, "planned": planned, **asdict(interval)}


def render(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of the page below its head."""
    for cell in cells:
        yield ""
        yield f"## {cell['data']}, {cell['model']}"
        yield ""
        sizes = f"{cell['seekers']} seekers, {cell['items']:,} items"
        yield f"{sizes}; all conversations took {cell['cpu_seconds']} CPU seconds."
        yield ""
        turns = range(1, TURNS + 1)
        heads = [*(f"turn {turn}, %" for turn in turns), *(f"rank {turn}" for turn in turns)]
        yield f"| | {' | '.join(heads)} |"
        yield "| ---" + " | ---:" * len(heads) + " |"
        for policy, of in cell["policies"].items():
            shares = [f"{100 * each['mean']:.1f}" for each in of["success"]]
            last = of["success"][-1]
            shares[-1] += f" ({100 * last['low']:.1f} to {100 * last['high']:.1f})"
            ranks = [f"{rank:,.0f}" for rank in of["ranks"]]
            yield f"| {policy} | {' | '.join([*shares, *ranks])} |"
        yield ""
        yield f"Success at turn {TURNS}, difference in percent points; the planned ones in bold."
        yield ""
        yield "| | against | difference | interval |"
        yield "| --- | --- | ---: | --- |"
        for each in cell["differences"]:
            bold = "**" * each["planned"]
            level = f"{100 * FAMILY:g} %" if each["planned"] else "95 %"
            interval = f"{100 * each['low']:+.1f} to {100 * each['high']:+.1f} ({level})"
            yield (
                f"| {each['policy']} | {each['against']} | {bold}{100 * each['mean']:+.1f}{bold} | "
                f"{interval} |"
            )
        yield ""
        yield from render_outcomes(cell["policies"])


def render_outcomes(policies: Mapping[str, Any]) -> Iterator[str]:
    """How much of what was said was understood, by what was meant."""
    kinds = ("understood", "as text", "otherwise", "not at all")
    yield "What became of what was meant under `critiques`, in percent of what was said."
    yield ""
    yield f"| meant | said | {' | '.join(kinds)} | put plainly: understood |"
    yield "| ---" + " | ---:" * (len(kinds) + 2) + " |"
    plain = policies["plain critiques"]["outcomes"]
    for kind, counts in policies["critiques"]["outcomes"].items():
        total = sum(counts.values())
        shares = [f"{100 * counts.get(each, 0) / total:.0f}" for each in kinds]
        own = plain.get(kind, {})
        share = f"{100 * own.get('understood', 0) / sum(own.values()):.0f}" if own else "-"
        yield f"| {kind} | {total} | {' | '.join(shares)} | {share} |"


def main(argv: Sequence[str]) -> None:
    """Measures what is missing, and writes the page."""
    root, runs = map(Path, argv)
    cells = [measure(root, runs, Cell(data, model)) for data in SETS for model in MODELS]
    # Without the lines, which hold words of the data's texts.
    kept = [{name: value for name, value in cell.items() if name != "lines"} for cell in cells]
    write_atomic(HERE / "seeker.json", json.dumps(kept, indent=1) + "\n")
    head = (HERE / "seeker-head.md").read_text().rstrip()
    write_atomic(HERE / "seeker.md", "\n".join([head, *render(cells)]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
