"""Imports run one way: each room may import only what stands before it."""

import ast
import graphlib
import importlib
from pathlib import Path

import recsys
from recsys.config.compose import AXES

ROOT = Path(recsys.__file__).parent
ROOMS = [
    "printable",
    "lazy",
    "errors",
    "words",
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
    "pretraining",
    "tracking",
    "training",
    "assembly",
    "fit",
    "pretrain",
    "boards",
    "compare",
    "sweep",
    "trained",
    "recommend",
    "explain",
    "chat",
    "compress",
    "refresh",
    "clean",
    "forget",
    "export",
    "serve",
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


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path, modules):
    """Modules of the package that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recsys."):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & modules
            if names - modules:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("recsys."))


def test_no_module_imports_itself_by_way_of_others():
    files = {name_of(path): path for path in ROOT.rglob("*.py") if path.parent != ROOT}
    graph = {n: set(imported_modules(path, set(files))) - {n} for n, path in files.items()}
    try:
        circle = None if list(graphlib.TopologicalSorter(graph).static_order()) else graph
    except graphlib.CycleError as error:
        circle = error.args[1]
    assert circle is None


def test_a_folder_has_at_most_twelve_files_but_for_the_choices_of_an_axis():
    axes = {Path(importlib.import_module(package).__file__).parent for package in AXES.values()}
    sizes = {
        folder.relative_to(ROOT): len([p for p in folder.glob("*.py") if p.stem != "__init__"])
        for folder in ROOT.rglob("*")
        if folder.is_dir() and folder not in axes
    }
    assert {folder: size for folder, size in sizes.items() if size > 12} == {}


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in ROOT.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
