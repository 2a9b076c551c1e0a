"""The pages of README and docs/, and the blocks and commands that they hold."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?^```(?P<kind>\w*)\n(?P<body>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and why it is not run, where it says so."""

    kind: str
    body: str
    why: str | None


def pages():
    """README, the pages, and the chapters, whose text stands in comments."""
    docs = ROOT / "docs"
    chapters = sorted(docs.glob("chapters/[0-9]*.py"))
    return [ROOT / "README.md", *sorted(docs.rglob("*.md")), *chapters]


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    found = FENCE.finditer(text)
    return [Block(each["kind"], each["body"], each["why"]) for each in found]


def commands(page):
    """Each command of the blocks that run, as words; `a && b` are two."""
    out = []
    for block in blocks(page):
        if block.kind != "bash" or block.why is not None:
            continue
        for line in block.body.replace("\\\n", " ").splitlines():
            out += [shlex.split(part) for part in line.split("&&") if part.strip()]
    return out


def files(page):
    """Blocks of YAML that begin with `# PATH`: files that the reader is told to write."""
    found = {}
    for block in blocks(page):
        name = re.match(r"# (\S+\.yaml)\n", block.body)
        if block.kind == "yaml" and name:
            found[name[1]] = block.body
    return found
