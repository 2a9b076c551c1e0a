"""Layers, widths and bits of finished runs: `python benchmarks/compress/run.py RUN RUN RUN`.

Runs are those of two towers on texts that differ in their seed alone. Each is made smaller in every
way by the functions of python -m recsys.compress, and ranks its own test cases; what is measured is
kept in results.json beside this file, run by run and encoder by encoder, and a second start goes on
from there. The page and the plot are made at the end; `--page` makes them anew. Needs matplotlib,
and faiss-cpu of the extra `export`.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.assembly.stored_runs import DataIdentity, open_run
from recsys.encoders.cache.vectors import FrozenVectorCache
from recsys.encoders.encoder import Encoder
from recsys.evaluation.quantization import count_bytes, quantize
from recsys.models.two_tower import Model
from recsys.recommender.trainable import require_trainable
from recsys.runtime.files import write_atomic
from recsys.trained.compression.run import _fold, _read_heads, fill_heads
from recsys.trained.compression.settings import STATIC, CompressionSettings
from recsys.trained.compression.students import Origin, encode, make_student
from recsys.trained.compression.teacher import Teacher, read_teacher
from recsys.trained.exports.opened import open_for_export
from recsys.trained.run import load
from recsys.types import Ragged

HERE = Path(__file__).parent
PRECISIONS = ("fp32", "int8", "binary", "binary+int8")
LAYERS = (6, 3, 2, STATIC)
WIDTHS = (384, 128, 64)
TEXTS = 300
LARGE = 100_000
POOL = 200
K = 10
Row = dict[str, Any]


def measure_cpu(work: Callable[[], object], times: int = 25) -> float:
    """Median milliseconds of CPU of this thread: other processes on the machine add none."""
    work()
    out = []
    for _ in range(times):
        start = time.thread_time()
        work()
        out.append(1e3 * (time.thread_time() - start))
    return float(np.median(out))


class Small:
    """An encoder in place of a run's, with vectors in the basis of the run."""

    def __init__(self, teacher: Teacher, student: tuple[Encoder, nn.Linear] | None) -> None:
        self.teacher, self.student = teacher, student
        self.encoder = teacher.encoder if student is None else student[0]

    @torch.no_grad()
    def encode(self, tokens: Ragged) -> Tensor:
        """(N, D) vectors of texts."""
        if self.student is None:
            return self.teacher.tower(tokens) @ self.teacher.basis.T
        return self.student[1](self.student[0](tokens).float())

    @torch.no_grad()
    def encode_catalog(self) -> Tensor:
        """(I, D) vectors of all items."""
        rows = torch.arange(len(self.teacher.opened.texts))
        if self.student is None:
            return torch.from_numpy(self.teacher.opened.vectors) @ self.teacher.basis.T
        return self.student[1](encode(self.student[0], self.teacher, rows))

    def count_megabytes(self, width: int) -> float:
        """Of the weights in fp32; a static table has `width` columns and one more."""
        count = sum(p.numel() for p in self.encoder.parameters())
        if self.student is not None and self.encoder.width == self.teacher.width + 1:
            return count * (width + 1) / (self.teacher.width + 1) * 4 / 1e6
        return (count + self.encoder.vector_width * width) * 4 / 1e6


def make_model(
    small: Small, values: Tensor, heads: dict[str, Tensor], turn: Tensor | None, precision: str
) -> Model:
    """The run's model over given item vectors (I, W)."""
    made = small.teacher.opened.made
    encoder = copy.copy(small.teacher.encoder)
    encoder.vector_width = values.shape[1]
    parts = replace(
        made.recommender.parts.encoding,
        encoder=encoder,
        tuned=replace(made.encoding.tuned, trained=frozenset()),
        vectors=FrozenVectorCache(values.contiguous(), None),
        prefix=None,
    )
    architecture = replace(
        small.teacher.opened.run.config.architecture, vectors_as=precision, pool=POOL
    )
    model = Model(replace(made.recommender.parts, encoding=parts), architecture)
    fill_heads(model, heads, turn, True)
    return model.eval()


def rank_texts(model: Model, vectors: Tensor) -> Tensor:
    """(N, K) the best items for texts of which (N, W) vectors are given."""
    only = F.normalize(vectors, dim=-1)
    asked = model.apply_head(only, model.user_head)
    return model.score(asked, model.index_catalog()).topk(K).indices


def strip_titles(texts: Sequence[str]) -> list[str]:
    """Titles alone, without year and kinds: texts that nothing was fitted to."""
    return list(dict.fromkeys(text.partition(" (")[0] for text in texts))


def cut(vectors: Tensor, teacher: Teacher, turn: Tensor | None) -> Tensor:
    """(N, W) of vectors (N, D) in the basis of the run; without a turn in its own numbers."""
    return vectors @ teacher.basis if turn is None else vectors @ (turn @ teacher.basis.T).T


def measure_encoder(
    small: Small,
    heads: dict[str, Tensor],
    cells: Sequence[tuple[int, str]],
    truth: Tensor,
    asked: Ragged,
) -> list[Row]:
    """A row for each width and precision of one encoder."""
    catalog, texts = small.encode_catalog(), small.encode(asked)
    teacher, ids = small.teacher, asked.values[: asked.sizes[0]]
    spent = measure_cpu(lambda: small.encode(Ragged(ids, asked.sizes[:1])))
    rows = []
    for width, precision in cells:
        turn = teacher.make_turn(None if width == teacher.width else width, precision)
        model = make_model(small, cut(catalog, teacher, turn), heads, turn, precision)
        test = model.evaluate(teacher.opened.made.datamodule.test_dataloader())
        found = rank_texts(model, cut(texts, teacher, turn)).tolist()
        same = [len(set(a) & set(b)) / K for a, b in zip(found, truth.tolist(), strict=True)]
        each = count_bytes(precision, width)
        rows.append(
            {
                "width": width,
                "vectors": precision,
                "ndcg": test["ndcg@10"],
                "warm": test["warm/ndcg@10"],
                "cold": test["cold/ndcg@10"],
                "cold_cases": test["cold/cases"],
                "texts": float(np.mean(same)),
                "encode_ms": spent,
                "encoder_mb": small.count_megabytes(width),
                "index_mb": each * len(catalog) / 1e6,
                "index_100k_mb": each * LARGE / 1e6,
            }
        )
    return rows


def measure_search(vectors: np.ndarray[Any, Any]) -> list[Row]:
    """CPU milliseconds of a search by width and precision, among 1,682 and 100,000 items."""
    rows = []
    for width in WIDTHS:
        for count in (len(vectors), LARGE):
            own = np.ascontiguousarray(np.resize(vectors[:, :width], (count, width)))
            own = own / np.linalg.norm(own, axis=1, keepdims=True)
            for precision in ("fp32", "int8", "binary+int8"):
                search = make_search(own, precision)
                rows.append(
                    {
                        "width": width,
                        "items": count,
                        "vectors": precision,
                        "search_ms": measure_cpu(lambda: search(own[7] + own[9])),  # noqa: B023
                    }
                )
    history = np.array([3, 5, 8, 13, 21])
    for row in rows:
        own = vectors[:, : row["width"]]
        row["history_ms"] = row["search_ms"] + measure_cpu(lambda: own[history].mean(0))  # noqa: B023
    return rows


def make_search(own: np.ndarray[Any, Any], precision: str) -> Callable[[Any], object]:
    """What finds the best K items of a query vector."""
    width = own.shape[1]
    if precision == "binary+int8":
        codes, factors = (part.numpy() for part in quantize(torch.from_numpy(own)))
        index = faiss.IndexBinaryFlat(width)
        index.add(np.packbits(own > 0, axis=1))

        def search(query: np.ndarray[Any, Any]) -> object:
            pool = index.search(np.packbits(query[None] > 0, axis=1), POOL)[1][0]
            scores = (codes[pool].astype(np.float32) @ query) * factors[pool, 0]
            return pool[np.argpartition(-scores, K)[:K]]

        return search
    kind = faiss.ScalarQuantizer.QT_8bit
    exact = precision == "fp32"
    flat = (
        faiss.IndexFlatIP(width)
        if exact
        else faiss.IndexScalarQuantizer(width, kind, faiss.METRIC_INNER_PRODUCT)
    )
    if not exact:
        flat.train(own)
    flat.add(own)
    return lambda query: flat.search(query[None], K)


def measure_run(
    folder: Path, steps: int, results: dict[str, Any], save: Callable[[], None]
) -> None:
    """All rows of one run that are not there yet."""
    run = load(folder)
    seed = run.config.seed
    cells = [(n, width, precision) for n in LAYERS for width in WIDTHS for precision in PRECISIONS]
    known = {
        (str(r["layers"]), r["width"], r["vectors"]) for r in results["rows"] if r["seed"] == seed
    }
    todo = [cell for cell in cells if (str(cell[0]), *cell[1:]) not in known]
    if not todo and "search" in results:
        return
    opened = open_for_export(run)
    identity = DataIdentity.compute(run.config, opened.made.split, opened.made.fingerprint)
    source = open_run("run", str(folder), identity, "make it smaller")
    teacher = read_teacher(opened)
    heads = _read_heads(require_trainable(opened.made.recommender))
    _fold(opened.made)
    for parameter in teacher.encoder.parameters():
        parameter.requires_grad_(False)
    titles = strip_titles(opened.texts)[::4][:TEXTS]
    ids = opened.made.tokenize(titles)
    asked = Ragged(torch.tensor([each for row in ids for each in row]), tuple(map(len, ids)))
    before = Small(teacher, None)
    whole = CompressionSettings(seed=seed, steps=steps)
    vectors = [cut(x, teacher, None) for x in (before.encode_catalog(), before.encode(asked))]
    truth = rank_texts(make_model(before, vectors[0], heads, None, "fp32"), vectors[1])
    if "search" not in results:
        faiss.omp_set_num_threads(1)
        results["search"] = measure_search(before.encode_catalog().numpy())
        save()
    for layers in dict.fromkeys(cell[0] for cell in todo):
        base = replace(whole, layers=None if layers == 6 else layers)
        began = time.process_time()
        state = HERE / f".state-{layers}-{seed}"
        student = make_student(teacher, base, Origin(source.digest, state))
        own = {
            "layers": layers,
            "seed": seed,
            "learning_cpu_s": time.process_time() - began,
            "before": run.result["test"]["ndcg@10"],
        }
        mine = [r for r in results["rows"] if (r["layers"], r["seed"]) == (layers, seed)]
        for row in mine[:1]:  # of a start before this one, which did not find it in the cache
            own["learning_cpu_s"] = max(own["learning_cpu_s"], row["learning_cpu_s"])
        some = [cell[1:] for cell in todo if cell[0] == layers]
        rows = measure_encoder(Small(teacher, student), heads, some, truth, asked)
        for row in rows:
            row["encode_ms"] = mine[0]["encode_ms"] if mine else row["encode_ms"]
        results["rows"] += [{**own, **row} for row in rows]
        save()
        print(f"seed {seed}, layers {layers}: {own['learning_cpu_s']:.0f} CPU s", flush=True)


def average(rows: Sequence[Row], key: str) -> tuple[float, float]:
    """Mean and standard deviation over seeds."""
    values = [row[key] for row in rows]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def group_rows(results: dict[str, Any]) -> dict[tuple[str, int, str], list[Row]]:
    """Rows of all seeds by layers, width and precision."""
    out: dict[tuple[str, int, str], list[Row]] = {}
    for layers in LAYERS:
        for width in WIDTHS:
            for precision in PRECISIONS:
                key = (str(layers), width, precision)
                mine = [
                    row
                    for row in results["rows"]
                    if (str(row["layers"]), row["width"], row["vectors"]) == key
                ]
                if mine:
                    out[key] = mine
    return out


def find_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other one beats in both, by the first number."""
    order = sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1]))
    front, best = [], -np.inf
    for at in order:
        if points[at][1] > best:
            front.append(at)
            best = points[at][1]
    return front


def write_page(results: dict[str, Any]) -> None:
    """README.md: the intro, the table and the searches."""
    groups = group_rows(results)
    searches = {(r["width"], r["items"], r["vectors"]): r for r in results["search"]}
    items = min(r["items"] for r in results["search"])
    seeds = sorted({row["seed"] for row in results["rows"]})
    spent = {  # the largest of the seeds: what was found in the cache took nothing
        n: max(r["learning_cpu_s"] for r in results["rows"] if str(r["layers"]) == n)
        for n in map(str, LAYERS[1:])
    }
    about = {
        "seeds": len(seeds),
        "steps": results["steps"],
        "texts": TEXTS,
        "pool": POOL,
        "cold": int(results["rows"][0]["cold_cases"]),
        **{f"spent_{layers}": f"{value:.0f}" for layers, value in spent.items()},
    }
    lines = [(HERE / "head.md").read_text().rstrip().format(**about), ""]
    lines += [
        "| layers | width | vectors | nDCG@10 | warm | cold | texts, overlap@10 | text query, ms "
        "| history, ms | encoder, MB | index, MB | index of 100,000, MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    sizes = [
        (average(rows, "encoder_mb")[0] + average(rows, "index_mb")[0], average(rows, "ndcg")[0])
        for rows in groups.values()
    ]
    front = {list(groups)[at] for at in find_front(sizes)}
    for key, rows in groups.items():
        layers, width, precision = key
        search = searches.get((width, items, precision))
        quality = [
            "{:.2f} ± {:.2f}".format(*(100 * each for each in average(rows, name)))
            for name in ("ndcg", "warm", "cold")
        ]
        encode_ms = average(rows, "encode_ms")[0]
        times = ["-", "-"]
        if search is not None:
            times = [f"{encode_ms + search['search_ms']:.2f}", f"{search['history_ms']:.3f}"]
        mark = "**" if key in front else ""
        cells = [
            f"{mark}{layers}{mark}",
            str(width),
            precision,
            *quality,
            f"{100 * average(rows, 'texts')[0]:.0f}%",
            *times,
            f"{average(rows, 'encoder_mb')[0]:.1f}",
            f"{rows[0]['index_mb']:.2f}",
            f"{rows[0]['index_100k_mb']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Search alone, CPU ms a query", ""]
    lines += ["| width | vectors | 1,682 items | 100,000 items |", "|---|---|---|---|"]
    for width in WIDTHS:
        for precision in ("fp32", "int8", "binary+int8"):
            pair = [searches[width, n, precision]["search_ms"] for n in (items, LARGE)]
            lines.append(f"| {width} | {precision} | {pair[0]:.3f} | {pair[1]:.2f} |")
    write_atomic(HERE / "README.md", "\n".join(lines) + "\n")


def draw(results: dict[str, Any]) -> None:
    """pareto.png: quality against megabytes and against the time of a text query."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.ticker
    from matplotlib import pyplot as plt

    groups = group_rows(results)
    search = {
        (r["width"], r["vectors"]): r["search_ms"] for r in results["search"] if r["items"] != LARGE
    }
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True)
    colours = dict(zip(map(str, LAYERS), ("#1b4f9c", "#2a9d6f", "#d9822b", "#a3367b"), strict=True))
    shapes = dict(zip(PRECISIONS, "osv^", strict=True))
    for axis, name in zip(axes, ("size", "time"), strict=True):
        points, labels = [], []
        for (layers, width, precision), rows in groups.items():
            if name == "time" and (width, precision) not in search:
                continue
            mean, spread = (100 * each for each in average(rows, "ndcg"))
            x = average(rows, "encoder_mb")[0] + average(rows, "index_mb")[0]
            if name == "time":
                x = average(rows, "encode_ms")[0] + search[width, precision]
            area = {384: 70, 128: 40, 64: 18}[width]
            axis.errorbar(x, mean, spread, color=colours[layers], alpha=0.25, lw=1)
            axis.scatter(
                x, mean, area, color=colours[layers], marker=shapes[precision], alpha=0.85, lw=0
            )
            points.append((x, mean))
            labels.append(f"{layers}, {width}, {precision}")
        front = find_front(points)
        axis.step(
            *zip(*(points[at] for at in front), strict=True),
            where="post",
            color="#555",
            lw=1,
            zorder=0,
        )
        shown: list[tuple[float, float]] = []
        for at in sorted(front, key=lambda at: -points[at][1]):  # of near ones the best has a name
            x, y = points[at]
            if any(abs(np.log(x / a)) < 0.3 and abs(y - b) < 0.6 for a, b in shown):
                continue
            shown.append((x, y))
            right = x > 0.5 * max(point[0] for point in points)
            axis.annotate(
                labels[at],
                (x, y),
                (-6 if right else 6, 10),
                textcoords="offset points",
                fontsize=8,
                ha="right" if right else "left",
            )
        axis.set_xscale("log")
        for kind in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            kind(
                matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:g}" if str(x)[0] in "125" else "")
            )
        axis.grid(alpha=0.2)
    axes[0].set_xlabel("MB, encoder and index of 1,682 items")
    axes[1].set_xlabel("CPU ms of a text query, search included")
    axes[0].set_ylabel("nDCG@10, percent (bars: deviation over seeds)")
    handles = [
        plt.Line2D([], [], color=c, marker="o", ls="", label=f"{n} layers" if n != STATIC else n)
        for n, c in colours.items()
    ]
    handles += [
        plt.Line2D([], [], color="#777", marker=m, ls="", label=p) for p, m in shapes.items()
    ]
    handles += [
        plt.Line2D([], [], color="#777", marker="o", ls="", ms=s, label=f"width {w}")
        for w, s in ((384, 8), (128, 6), (64, 4))
    ]
    figure.legend(handles=handles, loc="lower center", ncol=11, fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(HERE / "pareto.png", dpi=110)


def main() -> None:
    """Measures what is missing, and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    path = HERE / "results.json"
    results = {"steps": args.steps, "rows": []}
    if path.is_file():
        results = json.loads(path.read_text())

    def save() -> None:
        write_atomic(path, json.dumps(results, indent=1) + "\n")

    torch.set_num_threads(1)
    for folder in [] if args.page else args.runs:
        measure_run(folder, results["steps"], results, save)
    write_page(results)
    draw(results)


if __name__ == "__main__":
    main()
