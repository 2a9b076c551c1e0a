"""What reading, checking, splitting and describing a large data set takes, on made-up files.

    OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 python benchmarks/data.py [rows=N ...] [reviews=N ...]

Each size is one `python -m recsys.data` in a process of its own. Without sizes: 2 million ratings
as MovieLens' ratings.csv, and 500,000 Amazon reviews as JSON lines. `rows=20000000` is the size
that the project promises to fit in 4 GB. The table goes to the standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

DEFAULT = ("rows=2000000", "reviews=500000")
_PIECE = 1_000_000  # rows that are made at a time
_FIRST, _SPAN = 1_300_000_000, 300_000_000  # seconds
_WORDS = ("good", "sound", "strings", "cheap", "case", "arrived", "late", "very", "happy", "broke")
# Of this process alone: what the kernel tells of a child counts its parent's memory as well.
_CHILD = """
import sys, time
from recsys.data.__main__ import main
assert main(sys.argv[1:]) == 0
words = [line.split() for line in open("/proc/self/status")]
peak = next(int(each[1]) for each in words if each[0] == "VmHWM:")
print(peak * 1024, time.process_time(), file=sys.stderr)
"""


def measure(*asked: str) -> tuple[int, float]:
    """Peak resident bytes and CPU seconds of the data command.

    Args:
        asked: Its words.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *asked], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"python -m recsys.data {' '.join(asked)}: {done.stderr}")
    peak, seconds = done.stderr.split()[-2:]
    return int(peak), float(seconds)


def _events(rows: int) -> tuple[int, int]:
    """How many users and items make so many events look like a shop's."""
    return max(2, rows // 100), max(10, min(60_000, rows // 50))


def make_ratings(folder: Path, rows: int) -> list[str]:
    """MovieLens' ratings.csv and movies.csv; the words that read them."""
    users, items = _events(rows)
    rng = np.random.default_rng(0)
    with (folder / "ratings.csv").open("wb") as file:
        for start in range(0, rows, _PIECE):
            n = min(_PIECE, rows - start)
            # few items have most of the events
            item = (items * rng.random(n) ** 3).astype(np.int64)
            frame = pl.DataFrame(
                {
                    "userId": rng.integers(0, users, n),
                    "movieId": item,
                    "rating": rng.integers(1, 11, n) / 2,
                    "timestamp": _FIRST + rng.integers(0, _SPAN, n),
                }
            )
            frame.write_csv(file, include_header=start == 0)
    films = (f"{i},Film {i} (1999),Drama|War\n" for i in range(items))
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(films))
    return ["source=movielens", f"path={folder}", "split=time"]


def make_reviews(folder: Path, rows: int) -> list[str]:
    """Amazon's reviews of some 200 letters and its products, of 2018; the words that read them."""
    users, items = _events(rows)
    rng = np.random.default_rng(0)
    with (folder / "Things.json").open("w", encoding="utf-8") as file:
        for _ in range(rows):
            user, item, time = rng.integers(0, [users, items, _SPAN]).tolist()
            row = {
                "reviewerID": f"A{user:09d}",
                "asin": f"B{item:09d}",
                "overall": float(1 + item % 5),
                "unixReviewTime": _FIRST + time,
                "reviewText": " ".join(_WORDS[i] for i in rng.integers(0, 10, 35).tolist()),
            }
            file.write(json.dumps(row) + "\n")
    with (folder / "meta_Things.json").open("w", encoding="utf-8") as file:
        for i in range(items):
            file.write(
                json.dumps({"asin": f"B{i:09d}", "title": f"Thing {i}", "brand": "A"}) + "\n"
            )
    return ["source=amazon", f"path={folder}", "split=time", "user_reviews=2"]


def main(argv: list[str]) -> None:
    """Measures each size and prints a line of a table."""
    print("| data | rows | file MB | peak MB | bytes a row | CPU seconds |")
    print("|---|---|---|---|---|---|")
    makers = {"rows": (make_ratings, "ratings.csv"), "reviews": (make_reviews, "Things.json")}
    for word in argv or DEFAULT:
        kind, _, size = word.partition("=")
        if kind not in makers or not size.isdigit():
            raise SystemExit(f"'{word}' is not of the form rows=2000000 or reviews=500000")
        make, name = makers[kind]
        with tempfile.TemporaryDirectory() as place:
            asked = make(Path(place), int(size))
            peak, seconds = measure(*asked)
            on_disk = (Path(place) / name).stat().st_size / 1e6
        print(
            f"| {name} | {int(size):,} | {on_disk:,.0f} | {peak / 1e6:,.0f} "
            f"| {peak / int(size):,.0f} | {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
