"""What chapters share: files such as one's own shop could export, and how a command runs."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import random
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import recsys

MATERIALS = (
    *("walnut", "bamboo", "marble", "linen", "leather", "rattan"),
    *("brushed steel", "smoked glass", "terracotta", "recycled plastic"),
)
PARTS = {"all": "", "warm": "warm/", "cold": "cold/"}
ROOMS = {
    "kitchen": ("chopping board", "fruit bowl", "bread bin", "tea tray"),
    "living room": ("side table", "floor lamp", "magazine rack", "picture frame"),
    "bathroom": ("soap dish", "laundry basket", "towel rail", "toothbrush mug"),
    "garden": ("plant pot", "lantern", "bird table", "stool"),
}


def write(folder: Path, users: int = 300, seed: int = 0, late: int = 0, skew: float = 0.0) -> None:
    """Writes `items.csv` (id, title) and `events.csv` (customer, product, time).

    A customer has a liking for one material, and stays in a room for a while: both can be told
    from the titles, and neither from how often something is sold.

    Args:
        folder: Where they go.
        users: How many customers.
        seed: Of all that is drawn.
        late: How many products are sold on the last of the eight days only.
        skew: How much more often some are sold than others of the same material and room: the
            standard deviation of the logarithm of their weights.
    """
    rng = random.Random(seed)
    items = [
        (f"p{number:03d}", material, room, f"{material.capitalize()} {thing}, {room}")
        for number, (material, room, thing) in enumerate(
            (material, room, thing)
            for material in MATERIALS
            for room, things in ROOMS.items()
            for thing in things
        )
    ]
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "title"), *((i, title) for i, _, _, title in items)])
    apart = random.Random(f"launches {seed}")  # what else is drawn stays as without them
    new = {items[place][0] for place in apart.sample(range(len(items)), late)}
    weight = {i: math.exp(skew * apart.gauss()) for i, *_ in items}
    rows: list[tuple[str, str, int]] = []
    for user in range(users):
        liked, room = rng.choice(MATERIALS), rng.choice(list(ROOMS))
        had: set[str] = set()
        for step in range(8):
            sold = [each for each in items if step == 7 or each[0] not in new]
            if rng.random() < 0.3:
                room = rng.choice(list(ROOMS))
            material = liked if rng.random() < 0.6 else rng.choice(MATERIALS)
            near = [i for i, m, r, _ in sold if m == material and r == room and i not in had]
            near = near or [i for i, *_ in sold if i not in had]
            item = rng.choices(near, [weight[i] for i in near])[0] if skew else rng.choice(near)
            had.add(item)
            rows.append((f"c{user:03d}", item, 1_700_000_000 + 86_400 * step + user))
    rng.shuffle(rows)
    with (folder / "events.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("customer", "product", "time"), *rows])


def run(command: str) -> None:
    """Runs a command as it would be typed, and prints it with what it prints.

    Args:
        command: As in `python -m recsys.compare 'runs/*'`.

    Raises:
        RuntimeError: It failed.
    """
    print(f"$ {command}")
    words = shlex.split(command)
    words[0] = sys.executable
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    print(done.stdout.strip())


@contextlib.contextmanager
def serve(folder: str) -> Iterator[str]:
    """A service of a bundle, as `python -m recsys.serve folder=FOLDER` starts it.

    Args:
        folder: The bundle.

    Yields:
        Its address; it is stopped afterwards.

    Raises:
        RuntimeError: It does not start.
    """
    command = [sys.executable, "-m", "recsys.serve", f"folder={folder}", "port=0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            said = ""
            while (address := re.search(r"http://\S+", said)) is None:
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(said)
                said += line
            yield address[0]
        finally:
            process.terminate()


def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a service answers to JSON.

    Args:
        url: Address and path.
        body: What is asked.
    """
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def measure(words: str) -> dict[str, float]:
    """Trains and tests one run, as `python -m recsys.fit WORDS` does, and prints nothing of it.

    Args:
        words: The words of the command.

    Returns:
        nDCG@10 of the test in percent: of all cases, of the warm and of the cold ones.

    Raises:
        RecsysError: As the command would end.
    """
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run = recsys.train(*shlex.split(words))
    return {part: 100 * run.metrics[f"{at}ndcg@10"] for part, at in PARTS.items()}


def fit(words: str) -> float:
    """As `measure`, nDCG@10 of all cases."""
    return measure(words)["all"]
