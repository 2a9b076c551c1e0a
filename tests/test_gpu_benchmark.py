"""benchmarks/gpu without a GPU: it runs as it would there, and gives no figure that it lacks."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "gpu"


@pytest.fixture
def scripts(monkeypatch):
    """Imports one of its modules, as a script beside it does."""
    monkeypatch.syspath_prepend(FOLDER)
    names = {path.stem for path in FOLDER.glob("*.py")}
    before = {name: sys.modules.pop(name) for name in names & set(sys.modules)}
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.fixture
def setting(scripts, tmp_path):
    measuring = scripts("measuring")
    return measuring.Setting("part", True, time.monotonic() + 60, tmp_path / "rows", tmp_path)


def read_rows(setting):
    return [json.loads(line) for line in setting.out.read_text().splitlines()]


@pytest.mark.slow
def test_a_row_says_why_it_was_not_measured(scripts, setting):
    def fail(row):
        row.figures["ms"] = 1.0
        raise RuntimeError("CUDA error: out of memory\nmore")

    setting.measure("table", "well", lambda row: row.add_rates(0.5, tokens=100, flops=1e12))
    setting.measure("table", "fails", fail)
    setting.measure("table", "cuda", lambda row: row.add_rates(0.5), cuda=True)
    setting.deadline = 0
    setting.measure("table", "late", lambda row: row.add_rates(0.5))
    assert [row["figures"] for row in read_rows(setting)] == [
        {"ms": 500.0, "tokens/s": 200.0, "TFLOP/s": 2.0},
        {"failed": "RuntimeError: CUDA error: out of memory"},
        {"not run": "needs CUDA"},
        {"not run": "no time left"},
    ]


def test_utilisation_is_of_the_peak_that_the_machine_part_measured(scripts, setting):
    peak = scripts("run").find_peak(
        [
            {"part": "encode", "row": "bf16 product", "figures": {"TFLOP/s": 1.0}},
            {"part": "machine", "row": "bf16 product of 8192", "figures": {"TFLOP/s": 800.0}},
        ]
    )
    setting.peak = float(peak)
    setting.measure("table", "row", lambda row: row.add_rates(2.0, flops=1.6e14))
    assert read_rows(setting)[0]["figures"]["of the bf16 peak"] == "10 %"
    assert scripts("run").find_peak([]) == ""


def test_the_page_has_every_row_and_says_how_parts_ended(scripts):
    rows = [
        {"part": "encode", "table": "titles", "row": "a|b", "figures": {"ms": 1234.5, "x": "y"}},
        {"part": "encode", "table": "titles", "row": "c", "figures": {"not run": "needs CUDA"}},
    ]
    parts = {
        "encode": {"ended": "stopped: its time was over", "seconds": 60.2},
        "topk": {"ended": "not run: no time left", "seconds": 0},
    }
    content = {"dry": True, "command": "x", "date": "d", "seconds": 61.0, "parts": parts}
    page = "\n".join(scripts("page").make_page({**content, "rows": rows}))
    assert "says nothing of a GPU" in page
    assert "60 s; stopped: its time was over." in page
    assert "0 s; not run: no time left." in page
    assert "|  | ms | x | not run |" in page
    assert "| a/b | 1,234 | y |  |" in page
    assert "| c |  |  | needs CUDA |" in page
    assert "dry run" not in "\n".join(
        scripts("page").make_page({**content, "dry": False, "rows": rows})
    )


def test_a_word_that_is_none_is_told(scripts, capsys):
    assert scripts("run").main(["encode", "speed"]) == 2
    assert "not understood: speed; parts: machine, tests, encode" in capsys.readouterr().out


def test_what_is_packed_holds_all_that_the_script_reads_and_no_result(scripts):
    files = {str(path) for path in scripts("pack").list_project()}
    assert {"benchmarks/gpu/run.sh", "tests/gpu/test_training.py", "recsys/__init__.py"} <= files
    assert {"tests/conftest.py", "tests/encoders/families.py", "pyproject.toml"} <= files
    assert not [name for name in files if name.endswith((".json", ".pyc", ".safetensors"))]
    size = sum((ROOT / name).stat().st_size for name in files)
    assert size < 10 * 2**20


BROKEN = """
import os, time

def dies(setting):
    setting.note("table", "before", {"ms": 1.0})
    os._exit(9)

def hangs(setting):
    setting.note("table", "before", {"ms": 2.0})
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_part_that_dies_or_hangs_leaves_its_rows_and_the_others_run(
    scripts, tmp_path, monkeypatch
):
    run = scripts("run")
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setenv("GPU_SCRATCH", str(tmp_path))
    monkeypatch.setattr(run, "GRACE", 1)
    parts = {"dies": ("broken:dies", 90), "hangs": ("broken:hangs", 45), "lost": ("no:no", 90)}
    monkeypatch.setattr(run, "PARTS", parts)
    assert run.main([f"--out={tmp_path / 'out'}"]) == 1
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["parts"]["dies"]["ended"] == "with code 9"
    assert content["parts"]["hangs"]["ended"] == "stopped: its time was over"
    assert content["parts"]["lost"]["ended"] == "with code 1"
    assert [row["figures"]["ms"] for row in content["rows"]] == [1.0, 2.0]


@pytest.mark.slow
def test_the_whole_script_runs_on_a_cpu_and_fakes_nothing(tmp_path):
    done = subprocess.run(
        [str(FOLDER / "run.sh"), "--dry", f"--out={tmp_path}", "--seconds=1500"],
        env={**os.environ, "PYTHON": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    content = json.loads((tmp_path / "results.json").read_text())
    run = (FOLDER / "run.py").read_text()
    assert content["dry"]
    assert all(f'"{name}"' in run for name in content["parts"])
    assert {how["ended"] for how in content["parts"].values()} == {"well"}
    told = {json.dumps(row["figures"]) for row in content["rows"] if "not run" in row["figures"]}
    assert told == {'{"not run": "needs CUDA"}', *(t for t in told if "skipped" in t)}
    for row in content["rows"]:
        if "peak GB" in row["figures"]:
            assert row["figures"]["peak GB"] == "not run: needs CUDA"
        assert "of the bf16 peak" not in row["figures"]
    measured = {row["part"] for row in content["rows"] if "ms" in row["figures"]}
    assert measured >= {"machine", "encode", "tuning", "topk", "smollm2", "qwen"}
    assert "says nothing of a GPU" in (tmp_path / "results.md").read_text()
