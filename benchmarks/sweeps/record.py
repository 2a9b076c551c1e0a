"""Keeps what a finished sweep found: `NAME/sweep.json` and `NAME.md`, without this machine's paths.

Usage: python benchmarks/sweeps/record.py FOLDER NAME WORD ...

FOLDER is the sweep's; the words are those of its command that a reader needs to repeat it. Its page
comes back by `python -m recsys.sweep page benchmarks/sweeps/NAME`.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from recsys.sweep import record
from recsys.sweep.report import page

HERE = Path(__file__).resolve().parent


def main(folder: Path, name: str, words: list[str]) -> None:
    """Writes the two files."""
    found = record.read_record(folder)
    common = {
        key: value
        for key, value in found.common.items()
        if not (isinstance(value, str) and Path(value).is_absolute())
    }
    target = HERE / name
    target.mkdir(exist_ok=True)
    kept = replace(found, folder=target, common=common)
    record.write_record(kept)
    comparison = folder / "comparison" / "report.md"
    if comparison.is_file():
        before, _, after = comparison.read_text(encoding="utf-8").partition("\n## Users\n")
        rest = after.partition("\n## ")
        text = before + (f"\n## {rest[2]}" if rest[1] else "")
        (target / "comparison.md").write_text(text, encoding="utf-8")
    command = f"```\npython -m recsys.sweep {' '.join(words)}\n```\n\n"
    (HERE / f"{name}.md").write_text(command + page.render_markdown(kept), encoding="utf-8")
    shutil.rmtree(target / "__pycache__", ignore_errors=True)
    print(HERE / f"{name}.md")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
