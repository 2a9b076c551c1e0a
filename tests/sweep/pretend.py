"""A run without a training, for the tests of the driver: `python -m pretend key=value ...`.

It leaves what a run leaves, and behaves as the file `PRETEND` says for its place in the design.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

EPOCHS = 3


def value(words):
    """Best near a learning rate of 1e-3; frozen runs name that of their heads."""
    rate = float(words.get("optimizer.lr", words.get("optimizer.head_lr", 1e-3)))
    return 0.3 - 0.05 * abs(math.log10(rate) + 3)


def main():
    words = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if "resume" in words:
        folder = Path(words["resume"])
        words = json.loads((folder / "config.yaml").read_text())
    else:
        folder = Path(words["output"]) / f"run-{time.time_ns()}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(json.dumps(words))
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "best.safetensors").write_text("parameters")
    places = [part for part in folder.parts if part.isdigit()]
    plan = json.loads(Path(os.environ["PRETEND"]).read_text())
    final = "final" in folder.parts
    kind = "fine" if final else plan.get(places[-1], "fine")
    with Path(os.environ["PRETEND"]).with_suffix(".calls").open("a") as calls:
        kept = (folder / "checkpoints").is_dir()
        calls.write(json.dumps({"folder": str(folder), "argv": sys.argv[1:], "kept": kept}) + "\n")
    if kind == "full":  # until there is room again
        print("error: x could not be written because the disk is full.", file=sys.stderr)
        sys.exit(5)
    if kind == "early":
        print("error: out of memory; lower trainer.batch_size.", file=sys.stderr)
        sys.exit(4)

    def leave(signum, frame):
        (folder / "saved").write_text("state")
        sys.exit(128 + signum)

    signal.signal(signal.SIGTERM, leave)
    told = [] if "resume" not in " ".join(sys.argv) else _told(folder)
    for epoch in range(len(told), EPOCHS + 1):
        best = value(words) * (0.4 + 0.6 * epoch / EPOCHS) * (0.1 if kind == "slow" else 1)
        with (folder / "validations.jsonl").open("a") as file:
            row = {"step": 10 * epoch, "epoch": epoch, "value": best, "seconds": epoch}
            file.write(json.dumps(row) + "\n")
        if kind == "nan" and epoch == 1:
            print("error: the loss is not finite at step 10.", file=sys.stderr)
            sys.exit(3)
        if kind == "memory" and epoch == 1:
            print("error: out of memory; lower trainer.batch_size.", file=sys.stderr)
            sys.exit(4)
        if kind == "refused":
            print("error: tuning.layers is 9, and the model has 2.", file=sys.stderr)
            sys.exit(2)
        if (kind == "killed once" and epoch == 1 and not told) or (kind == "killed" and epoch >= 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "slow":
            child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)"])
            (folder / "pids").write_text(f"{os.getpid()} {child.pid}")
            time.sleep(300)
        time.sleep(0.02)
    (folder / "result.json").write_text(json.dumps(result_of(words)))


def result_of(words):
    """What a complete run says."""
    result = {
        "validation": {
            "monitor": "val/ndcg@10",
            "best": value(words),
            "step": 10 * EPOCHS,
            "last": value(words),
            "steps": 10 * EPOCHS,
            "planned_steps": 10 * EPOCHS,
            "epochs": EPOCHS,
            "metrics": {"ndcg@10": value(words), "hr@10": 0.5, "cold/ndcg@10": 0.0},
        },
        "cost": {"train_seconds": 1.5, "trained_parameters": 7, "peak": None},
        "train": {"loss": 2.0, "distance": {"tuned": 0.1}},
    }
    if words.get("evaluation.test") != "false":
        result["test"] = {"ndcg@10": value(words), "cases": 5.0}
        result["floors"] = {"popularity": {"ndcg@10": 0.1, "cases": 5.0}}
    return result


def _told(folder):
    path = folder / "validations.jsonl"
    return path.read_text().splitlines() if path.is_file() else []


if __name__ == "__main__":
    main()
