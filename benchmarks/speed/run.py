"""Speed on real texts: every lever, and what people use today, side by side in one run.

Usage: python benchmarks/speed/run.py DATA [NAME ...] [--runs=5]

DATA holds `amazon-instruments` (items.tsv.gz, users.tsv.gz). NAMEs choose parts; without them all
are measured. Each writes `results/NAME.json`. Without DATA only the page is written, from head.md
and the files that are there. Set OMP_NUM_THREADS for the number of threads.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

PARTS: dict[str, str] = {
    "levers": "steps:levers",
    "prefix": "prefix:prefix",
    "peers": "peers:peers",
    "evaluation": "evaluation:evaluation",
    "scaling": "scaling:scaling",
    "overhead": "overhead:overhead",
    "clock": "clock:clock",
    "inverse": "inverse:inverse",
}
"""Name of a part to `module:function`; the function takes DATA and the number of runs, and returns
a `measure.Part`. Imported only when asked for. The page follows this order."""


def main(argv: list[str]) -> int:
    """Measures the parts that were asked for, then writes the page."""
    flags = [word for word in argv if word.startswith("--")]
    words = [word for word in argv if not word.startswith("--")]
    runs = [word.partition("=")[2] for word in flags if word.startswith("--runs=")]
    odd = [word for word in words[1:] if word not in PARTS]
    if len(runs) != len(flags) or not all(r.isdecimal() and int(r) > 0 for r in runs) or odd:
        print(f"not understood: {' '.join(odd or flags)}; parts: {', '.join(PARTS)}\n\n{__doc__}")
        return 2
    if words and not Path(words[0]).is_dir():
        print(f"{words[0]} is not a folder\n\n{__doc__}")
        return 2
    if words:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        RESULTS.mkdir(exist_ok=True)
        for name in words[1:] or PARTS:
            measure_part(name, Path(words[0]).resolve(), int(runs[-1]) if runs else 5)
            write_page()
    write_page()
    return 0


def measure_part(name: str, data: Path, runs: int) -> None:
    """Runs a part and writes its file."""
    import measure

    print(f"{name}: {runs} runs", flush=True)
    module, _, function = PARTS[name].partition(":")
    part = getattr(importlib.import_module(module), function)(data, runs)
    threads = os.environ.get("OMP_NUM_THREADS")
    prefix = f"OMP_NUM_THREADS={threads} " if threads else ""
    command = f"{prefix}python benchmarks/speed/run.py DATA {name} --runs={runs}"
    content = measure.result(name, command, part)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def write_page() -> None:
    """Writes README.md: the head, then a section a part."""
    lines = (HERE / "head.md").read_text().splitlines()
    for name in PARTS:
        path = RESULTS / f"{name}.json"
        if path.is_file():
            lines += section(json.loads(path.read_text()))
    (HERE / "README.md").write_text("\n".join(lines) + "\n")


def section(part: dict[str, Any]) -> list[str]:
    """A part in Markdown."""
    m = part["machine"]
    out = ["", f"## {part['title']}", "", f"`{part['command']}`", ""]
    out.append(
        f"{part['date']}, {m['cpu']} ({m['simd']}), {m['cores']} cores, {m['threads']} "
        f"thread{'s' if m['threads'] > 1 else ''}, torch {m['torch']}, Python {m['python']}."
    )
    for note in part["notes"]:
        out += ["", note]
    for what in dict.fromkeys(r["what"] for r in part["rows"]):
        out += ["", f"### {what}", "", *table([r for r in part["rows"] if r["what"] == what])]
    return out


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of one table; the first is what the others are compared with."""
    extras = list(dict.fromkeys(name for r in rows for name in r["extra"]))
    exact = list(dict.fromkeys(name for r in rows for name in r["exact"]))
    useful = any(r["tokens"] for r in rows)
    head = ["", "median s", "min - max", "CPU s", "times faster"]
    head += ["useful texts/s", "useful tokens/s"] if useful else []
    head += [*extras, *exact]
    out = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for r in rows:
        cells = [
            r["variant"],
            number(r["median_s"]),
            f"{number(r['min_s'])} - {number(r['max_s'])}",
            number(r["cpu_s"]),
            number(rows[0]["median_s"] / r["median_s"]),
        ]
        if useful:
            cells += [number(r[k] / r["median_s"]) if r[k] else "-" for k in ("texts", "tokens")]
        cells += [show(r["extra"].get(name)) for name in extras]
        cells += [f"{r['exact'][name]:.1e}" if name in r["exact"] else "-" for name in exact]
        out.append("| " + " | ".join(cells) + " |")
    return out


def show(value: float | str | None) -> str:
    """A cell of a further column."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else number(value)


def number(x: float) -> str:
    """Three figures, thousands in groups."""
    if x >= 100:
        return f"{x:,.0f}"
    return f"{x:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
