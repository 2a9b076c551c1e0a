"""How much memory a row takes: 20 million rows are to fit in 4 GB, 200 bytes each."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

STATUS = Path("/proc/self/status")
# Of the process itself: what the kernel tells of a child counts its parent's memory as well.
CHILD = """
import sys
from recsys.data.__main__ import main
assert main(sys.argv[1:]) == 0
words = [line.split() for line in open("/proc/self/status")]
print(next(int(each[1]) for each in words if each[0] == "VmHWM:"), file=sys.stderr)
"""


def peak(folder, rows):
    """Peak resident bytes of the data command on so many made-up ratings."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "userId": rng.integers(0, 1_000, rows),
            "movieId": rng.integers(0, 500, rows),
            "rating": rng.integers(1, 11, rows) / 2,
            "timestamp": 1_300_000_000 + rng.integers(0, 300_000_000, rows),
        }
    )
    frame.write_csv(folder / "ratings.csv")
    films = "".join(f"{i},Film {i} (1999),Drama\n" for i in range(500))
    (folder / "movies.csv").write_text("movieId,title,genres\n" + films)
    asked = [sys.executable, "-c", CHILD, "source=movielens", f"path={folder}", "split=time"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    return 1024 * int(done.stderr.split()[-1])


@pytest.mark.skipif(not STATUS.is_file(), reason="the system does not tell of peak memory")
def test_a_row_takes_a_few_hundred_bytes_at_most(tmp_path):
    """Between two sizes, so that Python and the libraries do not count; pieces weigh more here."""
    few, many = 20_000, 220_000
    grown = peak(tmp_path / "many", many) - peak(tmp_path / "few", few)
    assert grown < 400 * (many - few)
