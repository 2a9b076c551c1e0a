"""The model card of an exported run: README.md as model hubs read it, from the run's result."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recsys import printable
from recsys.compare.finished_runs import read_run
from recsys.compare.measures.case_values import compute_per_case, make_clusters
from recsys.compare.statistics.contrasts import estimate_mean
from recsys.config.compose import get_choice_name
from recsys.errors import RecsysError
from recsys.fit.seeds import SeedPlan, is_finished
from recsys.runs.result_file import read_result
from recsys.runtime.files import SEEDS
from recsys.trained.exports.source import ExportSource, compares_tokens

CARD = "README.md"

_SHOWN = re.compile(r"(ndcg|hr|recall)@\d+|mrr|auc|(warm|cold)/ndcg@\d+")
_LOADING = {
    "sentence_transformers": """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
items = model.encode_document(["text of an item", "text of another"])
query = model.encode_query("what is looked for")
print(model.similarity(query, items))""",
    "tokens": """from sentence_transformers import MultiVectorEncoder  # version 6

model = MultiVectorEncoder("FOLDER")
items = model.encode_document(["text of an item", "text of another"])
query = model.encode_query(["what is looked for"])
print(model.similarity(query, items))""",
    "vectors": """import numpy as np
import polars as pl

vectors = np.load("FOLDER/vectors.npy")
items = pl.read_parquet("FOLDER/vectors.parquet")  # row, item, title, vector""",
    "faiss": """import faiss
import polars as pl

index = faiss.read_index("FOLDER/index.faiss")
items = pl.read_parquet("FOLDER/items.parquet")
scores, rows = index.search(queries, 10)  # (N, 10) rows of items""",
    "onnx": """import numpy as np
import onnxruntime
from tokenizers import Tokenizer

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
tokenizer = Tokenizer.from_file("FOLDER/tokenizer.json")
read = tokenizer.encode_batch(["text of an item"])  # behind the prompt of onnx.json
inputs = {
    "input_ids": np.array([text.ids for text in read]),
    "attention_mask": np.array([text.attention_mask for text in read]),
}
(vectors,) = session.run(["item_vector"], inputs)""",
}


_ALONE = (
    "This is the card alone. The files that it describes are written by "
    "`python -m recsys.export run=RUN to=FOLDER format=NAME`, where `--help` lists the names."
)


def write_card(run: ExportSource, folder: Path) -> list[str]:
    """Fills a folder with a card alone.

    Args:
        run: The run.
        folder: An empty folder.

    Returns:
        A sentence on what it is.
    """
    (folder / CARD).write_text(format_card(run, "card", []), encoding="utf-8")
    return [f"{CARD}: data, metrics, baselines, cost and licence notes"]


def format_card(run: ExportSource, format: str, notes: Sequence[str]) -> str:
    """The text of a card.

    Args:
        run: The run.
        format: What lies beside the card.
        notes: Sentences on what that holds.
    """
    config, result = run.config, run.result
    data = get_choice_name(config.data.source)
    axes = {
        "tuning": None if config.tuning is None else get_choice_name(config.tuning),
        "architecture": get_choice_name(config.architecture),
        "objective": None if config.objective is None else get_choice_name(config.objective),
        "encoder": _name_encoder(run) if config.architecture.reads_tokens else None,
    }
    loading = "tokens" if format == "sentence_transformers" and compares_tokens(run) else format
    method = "\n".join(f"- {axis}: `{name}`" for axis, name in axes.items() if name)
    about: Mapping[str, object] = result["data"]
    lines = [
        _format_head(run, format, data),
        f"# {_escape(run.name)} on {_escape(data)}",
        "A recommender that was trained and measured with recsys, from its run "
        f"`{_escape(run.folder.name)}`.",
        f"{method}\n- seed: {config.seed}",
        "## Data",
        f"Source `{_escape(data)}`, split `{about.get('split')}`, fingerprint "
        f"`{about.get('fingerprint')}`. The data is no part of this folder, but for ids and titles "
        "of items where it lists them.",
        "## Metrics",
        _format_metrics(run),
        "## Cost",
        _format_cost(result.get("cost", {})),
        _format_versions(result.get("versions", {})),
        "## Use",
        *([f"```python\n{_LOADING[loading]}\n```"] if loading in _LOADING else []),
        *([_ALONE] if format == "card" else []),
        *(
            ["\n".join(f"- {note[:1].upper()}{_escape(note[1:])}." for note in notes)]
            if notes
            else []
        ),
        "## Licence",
        _format_licence(run, axes["encoder"]),
    ]
    return "\n\n".join(lines) + "\n"


def _format_head(run: ExportSource, format: str, data: str) -> str:
    """The front matter, as huggingface_hub writes it."""
    from huggingface_hub import EvalResult, ModelCardData

    metrics = {k: v for k, v in run.metrics.items() if _SHOWN.fullmatch(k) and v == v}
    figures = [
        EvalResult(
            task_type="recommendation",
            task_name="Recommendation",
            dataset_type=re.sub(r"[^A-Za-z0-9._-]", "-", data),
            dataset_name=data,
            dataset_split=str(run.result["data"].get("split")),
            metric_type=name,
            metric_value=round(value, 6),
        )
        for name, value in metrics.items()
    ]
    spec = run.config.encoder.model
    from_hub = run.config.architecture.reads_tokens and re.fullmatch(r"[\w.-]+/[\w.-]+", spec)
    is_folder = ":" in spec or Path(spec).expanduser().exists()
    text = format in ("sentence_transformers", "onnx")
    about = ModelCardData(
        library_name={
            "sentence_transformers": "sentence-transformers",
            "onnx": "onnx",
        }.get(format, "recsys"),
        pipeline_tag="sentence-similarity" if text else None,
        base_model=spec if from_hub and not is_folder else None,
        tags=["recsys", "recommendation", *(["sentence-similarity"] if text else [])],
        model_name=run.name if figures else None,
        eval_results=figures or None,
    )
    return f"---\n{about.to_yaml()}\n---"


def _format_metrics(run: ExportSource) -> str:
    """A table: the run with an interval, and the baselines on the same cases."""
    intervals, cases = _estimate_intervals(run)
    names = [name for name in run.metrics if _SHOWN.fullmatch(name)]
    floors: Mapping[str, Mapping[str, float]] = run.result.get("floors", {})
    rows = [f"| {_escape(run.name)} | {' | '.join(_percent(run.metrics[n]) for n in names)} |"]
    if intervals:
        shown = (intervals.get(name) for name in names)
        ends = ("-" if e is None else f"{_percent(e[0])} to {_percent(e[1])}" for e in shown)
        rows.append(f"| its 95 % interval | {' | '.join(ends)} |")
    rows += _format_seeds(run, names)
    for floor, figures in floors.items():
        cells = (_percent(figures.get(name, float("nan"))) for name in names)
        rows.append(f"| {_escape(floor)} | {' | '.join(cells)} |")
    head = f"| in percent | {' | '.join(names)} |\n|---|{'---:|' * len(names)}"
    protocol = run.result.get("protocol", {}).get("name", "catalog")
    what = f"Protocol `{protocol}`"
    if cases:
        what += (
            f", {cases:,} test cases{_count_cold(run)}; the interval is over users, for this one "
            "seed: another seed of training moves the figure further"
        )
    return "\n".join([f"{what}.", "", head, *rows])


def _count_cold(run: ExportSource) -> str:
    """How many of the cases are of items that training has not seen, where that is known."""
    count = run.metrics.get("cold/cases")
    return "" if count is None else f" ({count:,.0f} of them cold: of items new to training)"


def _format_seeds(run: ExportSource, names: Sequence[str]) -> list[str]:
    """A row of the mean and standard deviation over the seeds of one command, if it is of one."""
    series = run.folder.absolute().parent
    if not (series / SEEDS).is_file():
        return []
    found = {seed: at for seed, at in SeedPlan.read(series).find_runs().items() if is_finished(at)}
    if len(found) < 2:
        return []
    part = "test" if run.config.evaluation.test else "validation"
    results = [read_result(folder)[part] for folder in found.values()]
    metrics = results if part == "test" else [result["metrics"] for result in results]
    cells = []
    for name in names:
        values = np.array([each.get(name, math.nan) for each in metrics])
        spread = f"{_percent(values.mean())} ± {_percent(values.std(ddof=1))}"
        cells.append("-" if np.isnan(values).any() else spread)
    listed = ", ".join(map(str, sorted(found)))
    return [f"| mean ± standard deviation of seeds {listed} | {' | '.join(cells)} |"]


def _name_encoder(run: ExportSource) -> str:
    """What the encoder is called; of a folder of this machine the name alone."""
    spec = run.config.encoder.model
    return Path(spec).name if Path(spec).expanduser().exists() else spec


def _estimate_intervals(run: ExportSource) -> tuple[dict[str, tuple[float, float]], int]:
    """The interval of each metric that cases tell, and how many cases there are."""
    if not run.config.evaluation.test:
        return {}, 0
    finished = read_run(run.folder)
    clusters, out = make_clusters(finished), {}
    for name in run.metrics:
        whole = _SHOWN.fullmatch(name) and "/" not in name  # else it is of some of the cases
        values = compute_per_case(finished, name) if whole else None
        if values is None:
            continue
        try:
            estimate = estimate_mean(values[None], clusters)
        except RecsysError:  # of a single user nothing can be said
            continue
        out[name] = (estimate.low, estimate.high)
    return out, len(finished.cases)


def _format_cost(cost: Mapping[str, float]) -> str:
    """What training took."""
    parts = [
        f"{cost[key]:,.0f} {what}"
        for key, what in (
            ("trained_parameters", "parameters trained"),
            ("parameters", "parameters in all"),
            ("method_seconds", "seconds of the method"),
            ("tokens", "tokens read in training"),
        )
        if cost.get(key) is not None
    ]
    flops = cost.get("train_flops")
    parts += [f"{flops:.2e} FLOPs of training"] if flops else []
    return ", ".join(parts) + "." if parts else "Nothing was trained."


def _format_notes(notes: Sequence[str]) -> str:
    """Sentences on what lies beside the card, as a list."""
    return "\n".join(f"- {note[:1].upper()}{_escape(note[1:])}." for note in notes)


def _format_versions(versions: Mapping[str, object]) -> str:
    """With what it was trained."""
    names = ("recsys", "torch", "transformers", "peft")
    shown = [f"{name} {_escape(str(versions[name]))}" for name in names if versions.get(name)]
    return f"Trained with {', '.join(shown)}." if shown else "Its versions are not known."


def _format_licence(run: ExportSource, encoder: str | None) -> str:
    """What a reader has to look up: nothing of it is known here."""
    weights = run.result.get("encoder", {}).get("sha256") if encoder else None
    checksum = f" (SHA-256 of its weights: `{weights}`)" if weights else ""
    of = "" if encoder is None else f"the encoder `{_escape(encoder)}`{checksum} and of "
    return (
        f"No licence is set here. What was learned depends on the terms of {of}the data "
        f"`{_escape(get_choice_name(run.config.data.source))}`: look both up, and add `license:` "
        "to the head of this file, before you pass it on."
    )


def _percent(value: float) -> str:
    return "-" if value != value else f"{100 * value:.2f}"


def _escape(text: str) -> str:
    """A name on one line of Markdown, in which nothing of it acts."""
    return re.sub(r"([|`<>\[\]*])", "", printable.escape_line(text))
