"""Imports run one way: each room may import only what stands before it."""

import ast
from pathlib import Path

import recsys

ROOT = Path(recsys.__file__).parent
ROOMS = [
    "printable",
    "lazy",
    "errors",
    "runtime",
    "types",
    "config",
    "data",
    "encoders",
    "tuning",
    "layers",
    "metrics",
    "evaluation",
    "losses",
    "objectives",
    "runs",
    "recommender",
    "architectures",
    "models",
    "tracking",
    "training",
    "assembly",
    "fit",
    "boards",
    "compare",
    "sweep",
    "trained",
    "recommend",
    "testing",
]
ORDER = {room: place for place, room in enumerate(ROOMS)}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "recsys":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recsys."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("recsys."))


def test_every_room_is_listed_and_imports_only_what_stands_before_it():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        others = set(imported(path))
        unlisted = {room, *others} - set(ORDER)
        assert not unlisted, "give each room a place in the order"
        if path.name != "__main__.py":  # a command may import more than the room it starts from
            wrong += [f"{room} -> {other}" for other in others if ORDER[other] > ORDER[room]]
    assert not wrong
