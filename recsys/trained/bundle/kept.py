"""What a run keeps in its folder after its first answer, so that the next process answers at once.

It is a bundle without models, but for the encoder once a text was asked. It counts for as long as
the files of the data and of the run are those that it was made of, by size and time of change.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.config.compose import RunConfig
from recsys.errors import DataError
from recsys.runtime.files import BEST, CONFIG, FIT, RESULT, make_temporary_path
from recsys.trained.bundle.manifest import BundleFiles
from recsys.trained.bundle.plain import PlainModel

if TYPE_CHECKING:
    from torch import Tensor

    from recsys.assembly.assembled import Assembly

KEPT = "answers"
"""Folder in that of the run."""

LARGEST_GB = 0.5
"""What is larger is not kept: weights of EASE may take more than the rest of the run."""

_MOST = 1000  # files of a folder of data: of more, changes are not looked for, and nothing is kept


def open_kept(folder: Path, run: RunConfig) -> PlainModel | None:
    """What a run has kept, or None where that is nothing, or no longer of its data.

    Args:
        folder: Of the run.
        run: Its configuration.
    """
    try:
        files = BundleFiles(folder / KEPT)
        if files.manifest.about.get("made_of") == _describe_files(folder, run):
            return PlainModel(files)
    except DataError:
        pass  # it was never made, or is damaged: the run itself answers
    return None


def keep(folder: Path, run: RunConfig, made: Assembly, catalog: Tensor, texts: bool) -> None:
    """Keeps what answers without the run's own model, where a run can do so.

    A folder that cannot be written is left as it is.

    Args:
        folder: Of the run.
        run: Its configuration.
        made: Its model; with `texts` it is not to be asked any more, as what was tuned is folded
            into its encoder.
        catalog: (I, ...) what `index_catalog` gave.
        texts: Whether texts are to be answered too, for which the encoder is kept.
    """
    from recsys.trained.bundle.write import write_plain_bundle

    made_of = _describe_files(folder, run)
    if made_of is None or made.context_features.values:
        return
    form = made.recommender.make_plain_form()
    if form is None and not texts:
        return
    tensors = [catalog, *made.recommender.make_serving_state().values()]
    tensors += [] if form is None else form.arrays.values()
    if texts and made.encoding is not None:
        tensors += made.encoding.encoder.parameters()
    if sum(each.numel() * each.element_size() for each in tensors) > LARGEST_GB * 1e9:
        return
    target = folder / KEPT
    fresh = make_temporary_path(target)
    try:
        about = {"made_of": made_of}
        if write_plain_bundle(fresh, folder, run, made, catalog, about, texts):
            shutil.rmtree(target, ignore_errors=True)
            fresh.rename(target)
    except (DataError, OSError):  # read only, or full: the answer stands
        pass
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _describe_files(folder: Path, run: RunConfig) -> str | None:
    """Size and time of change of what a run's answers come from; None where that is not known."""
    out: list[tuple[str, int, int]] = []
    own = [folder / name for name in (CONFIG, RESULT, BEST, FIT) if (folder / name).is_file()]
    for path in [*own, *_list_data(run)]:
        if len(out) > _MOST:
            return None
        known = path.stat()
        out.append((str(path.absolute()), known.st_size, known.st_mtime_ns))
    return json.dumps(out)


def _list_data(run: RunConfig) -> Iterator[Path]:
    """The files that the options of the source name, and those of a folder that they name."""
    values = [getattr(run.data.source, each.name) for each in fields(run.data.source)]
    for value in [part for each in values for part in (each if isinstance(each, list) else [each])]:
        path = Path(value).expanduser() if isinstance(value, str) and value else None
        if path is not None and path.is_dir():
            yield from (each for each in sorted(path.rglob("*")) if each.is_file())
        elif path is not None and path.is_file():
            yield path
