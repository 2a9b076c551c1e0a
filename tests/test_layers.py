"""Imports run one way: each room may import only what stands before it."""

import ast
from pathlib import Path

import recsys

ROOT = Path(recsys.__file__).parent
ROOMS = [
    ["later"],
    ["numbers"],
    ["parent"],
    ["printable"],
    ["errors"],
    ["guard"],
    ["resultfile"],
    ["process"],
    ["progress"],
    ["types"],
    ["stopwatch", "overhead"],
    ["hardware"],
    ["schema", "yamlfile", "shipped"],
    ["values"],
    ["config"],
    ["usage", "idle"],
    ["data"],
    ["rankcost"],
    ["resume", "ranks"],
    ["encoders"],
    ["data.__main__"],
    ["histories", "maxsim", "items", "context"],
    ["querytexts"],
    ["tuning"],
    ["metrics"],
    ["objective"],
    ["accumulation"],
    ["objectives"],
    ["optim"],
    ["flops"],
    ["trained"],
    ["evaluation"],
    ["interactions", "item_item"],
    ["recommender"],
    ["architectures"],
    ["models"],
    ["candidates"],
    ["protocols"],
    ["record"],
    ["mining"],
    ["ending"],
    ["memory"],
    ["validations"],
    ["wandbfiles"],
    ["wandbrun"],
    ["tracking"],
    ["callbacks"],
    ["saving"],
    ["meter"],
    ["profiling"],
    ["itemtable"],
    ["encoding"],
    ["build"],
    ["bars"],
    ["remarks"],
    ["slices", "beyond"],
    ["results"],
    ["closing"],
    ["job"],
    ["seeds"],
    ["fit"],
    ["recommendations"],
    ["trained_run"],
    ["recommend"],
    ["notebook"],
    ["comparison"],
    ["boards"],
    ["boards.__main__"],
    ["compare"],
    ["sweeps"],
    ["sweep"],
    ["__main__"],
]
ORDER = {room: place for place, rooms in enumerate(ROOMS) for room in rooms}


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
        if room == "__init__":
            continue
        if (
            path.name == "__main__.py" and path.parent != ROOT
        ):  # a command may import more than the room it starts from
            room = f"{room}.__main__"
        others = set(imported(path))
        unlisted = {room, *others} - set(ORDER)
        assert not unlisted, "give each room a place in the order"
        wrong += [f"{room} -> {other}" for other in others if ORDER[other] > ORDER[room]]
    assert not wrong
