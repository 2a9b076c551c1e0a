"""What was measured as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recsys.runtime.files import write_atomic

PEAK = "bf16 product"
"""How the row begins that later parts take the device's peak from."""

DRY = (
    "**A dry run on a CPU, at toy sizes: it shows that every part runs and says nothing of a "
    "GPU.** What a CPU cannot do is named and has no figure."
)


def write(content: dict[str, Any], folder: Path) -> None:
    """Writes results.json and results.md, whole or not at all."""
    write_atomic(folder / "results.json", (json.dumps(content, indent=1) + "\n").encode())
    write_atomic(folder / "results.md", ("\n".join(make_page(content)) + "\n").encode())


def make_page(content: dict[str, Any]) -> list[str]:
    """The page's lines."""
    out = ["# GPU", "", f"`{content['command']}`, {content['date']}, {content['seconds']:.0f} s."]
    if content["dry"]:
        out += ["", DRY]
    for part, how in content["parts"].items():
        ended = "" if how["ended"] == "well" else f"; ended {how['ended']}"
        if how["ended"].startswith(("not", "stopped")):
            ended = f"; {how['ended']}"
        out += ["", f"## {part}", "", f"{how['seconds']:.0f} s{ended}."]
        rows = [row for row in content["rows"] if row["part"] == part]
        for table in dict.fromkeys(row["table"] for row in rows):
            out += ["", f"### {table}", ""]
            out += make_table([row for row in rows if row["table"] == table])
    return out


def make_table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of one table; what was not measured says why in its last column."""
    told = ("not run", "failed")
    columns = list(dict.fromkeys(n for r in rows for n in r["figures"] if n not in told))
    spoken = [name for name in told if any(name in r["figures"] for r in rows)]
    out = [
        "| " + " | ".join(["", *columns, *spoken]) + " |",
        "|---" * (1 + len(columns + spoken)) + "|",
    ]
    for row in rows:
        cells = [show(row["figures"].get(name, "")) for name in [*columns, *spoken]]
        out.append("| " + " | ".join([show(row["row"]), *cells]) + " |")
    return out


def show(value: float | str) -> str:
    """A cell."""
    if isinstance(value, str):
        return value.replace("|", "/")
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
