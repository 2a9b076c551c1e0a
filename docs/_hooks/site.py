"""What mkdocs does beside copying pages: generated parts, chapters, and files of other folders.

README is the first page, and pages link to `benchmarks/` as they do in the repository: both lie
outside of `docs/` and are taken in here, not copied.
"""

from __future__ import annotations

import posixpath
import re

import chapters
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = reference.ROOT
NAMED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}
"""Files of the root that are pages, and what they are called there."""
TAKEN = ("benchmarks",)
"""Folders of the root whose pages, pictures and scripts are part of the site."""
ENDINGS = {".md", ".png", ".svg", ".json", ".py"}
MADE = re.compile(r"<!-- generated: ([a-z ._]+) -->")
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the chapters and the pages of the root into the navigation, as they are found."""
    root = [place for name, place in NAMED.items() if place != "index.md" and _is_file(name)]
    for entry in config.nav or []:
        if "Chapters" in entry:
            entry["Chapters"] = [f"chapters/{path.stem}.md" for path in chapters.paths()]
        if "Project" in entry:
            entry["Project"] = root
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root, those of `TAKEN`, and the chapters."""
    for name, place in NAMED.items():
        if _is_file(name):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    for folder in TAKEN:
        for path in sorted((ROOT / folder).rglob("*")):
            part = "runs" in path.parts or path.name.endswith("head.md")  # of another page
            if path.suffix in ENDINGS and not part and path.is_file():
                place = path.relative_to(ROOT).as_posix()
                files.append(File.generated(config, place, abs_src_path=str(path)))
    for path in chapters.paths():
        made = chapters.page(path)
        files.append(File.generated(config, f"chapters/{path.stem}.md", content=made))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in what is generated and turns links within the repository into links of the site."""
    del config, files
    markdown = MADE.sub(_made, markdown)
    place = page.file.src_uri
    return LINK.sub(lambda match: _linked(match, place), markdown)


def _is_file(name: str) -> bool:
    return (ROOT / name).is_file()


def _made(match: re.Match[str]) -> str:
    name, *arguments = match[1].split()
    return reference.PARTS[name](*arguments)


def _source(place: str) -> str:
    """Where a page of the site lies in the repository."""
    named = {uri: name for name, uri in NAMED.items()}
    if place in named:
        return named[place]
    return place if place.startswith(tuple(f"{folder}/" for folder in TAKEN)) else f"docs/{place}"


def _linked(match: re.Match[str], place: str) -> str:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(_source(place)), match[1]))
    uri = NAMED.get(target, target.removeprefix("docs/"))
    if uri.startswith("chapters/"):
        uri = uri.replace(".py", ".md")
    if (ROOT / target / "README.md").is_file():
        uri = f"{target}/README.md"
    if target in ("experiments", "sweeps"):  # folders of files that have a page together
        uri = "experiments.md"
    elif not (ROOT / target).exists():
        return match[0]  # mkdocs says that it is missing
    return posixpath.relpath(uri, posixpath.dirname(place) or ".") + (match[2] or "")
