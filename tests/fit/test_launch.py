"""Processes that srun or torchrun has started train one run; a job that is queued again goes on."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recsys.errors import ConfigError
from recsys.runtime.launching import slurm
from recsys.runtime.launching.launches import find_first_host, find_launch
from recsys.runtime.launching.rendezvous import Rendezvous
from recsys.testing.shop import make_shop_words

LIMIT = 240


def find_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def make_step(rank, tasks=2, nodes=2, port=29500, **more):
    """The variables of a task of srun, as a stand-in cluster on this machine has them."""
    own = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": tasks,
        "SLURM_STEP_NUM_NODES": nodes,
        "SLURM_STEP_TASKS_PER_NODE": f"{tasks // nodes}(x{nodes})",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": tasks,
        "SLURM_PROCID": rank,
        "SLURM_NODEID": rank * nodes // tasks,
        "SLURM_LOCALID": rank % (tasks // nodes),
        "MASTER_PORT": port,
    }
    return {k: str(v) for k, v in (own | more).items()}


def make_environment(cache, **more):
    hidden = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "RECSYS_RUN_FOLDER")
    env = {
        k: v
        for k, v in os.environ.items()
        if k not in hidden and not k.startswith(("MASTER_", "SLURM_", "TORCHELASTIC_"))
    }
    return env | {"RECSYS_CACHE": str(cache), "OMP_NUM_THREADS": "1"} | more


def start(words, cache, command=("-m", "recsys.fit"), **more):
    return subprocess.Popen(
        [sys.executable, *command, *words],
        env=make_environment(cache, **more),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(*processes):
    """Codes, outputs and errors of processes, in their order."""
    out = []
    try:
        for process in processes:
            stdout, stderr = process.communicate(timeout=LIMIT)
            out.append((process.returncode, stdout, stderr))
    finally:
        for process in processes:
            process.kill()
    return out


@pytest.fixture(scope="module")
def encoder(tiny_bert, tmp_path_factory):
    """Without dropout: ranks would draw other masks than one process."""
    path = tmp_path_factory.mktemp("still") / "encoder"
    shutil.copytree(tiny_bert, path)
    config = json.loads((path / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def words(shop, encoder):
    return [
        *make_shop_words(shop, encoder),
        "tuning=lora",
        "tracking.wandb=off",
        "trainer.precision=auto",
        "trainer.threads=1",
        "trainer.epochs=2",
        # 40 users: the second batch of an epoch holds one, so that a rank has nothing of its own.
        "trainer.batch_size=39",
        "trainer.log_every=1",
        "optimizer.lr=0.003",
    ]


def assert_equal_runs(one, two):
    logs = [pl.read_csv(run / "log" / "metrics.csv") for run in (one, two)]
    assert logs[0].columns == logs[1].columns
    for name in (name for name in logs[0].columns if name != "seconds"):
        a, b = (frame[name].cast(pl.Float64).fill_null(-1.0).to_torch() for frame in logs)
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True), name
    first, second = (json.loads((run / "result.json").read_text()) for run in (one, two))
    assert first["test"] == pytest.approx(second["test"], nan_ok=True)
    own, other = (load_file(run / "checkpoints" / "best.safetensors") for run in (one, two))
    for name, value in own.items():
        assert torch.allclose(value, other[name], atol=1e-5), name


@pytest.mark.slow
def test_two_nodes_of_srun_train_as_one_process(words, tmp_path):
    port, cache = find_port(), tmp_path / "cache"
    nodes = [
        start([*words, f"output={tmp_path / 'runs'}"], cache, **make_step(rank, port=port))
        for rank in (0, 1)
    ]
    alone = start([*words, f"output={tmp_path / 'alone'}"], cache)
    (first, second, single) = finish(*nodes, alone)
    assert [first[0], second[0], single[0]] == [0, 0, 0], first[2] + second[2] + single[2]
    assert "on: 2 nodes x 1 x cpu" in first[1]
    assert second[1] == "", "only the first rank speaks"
    (run,) = (tmp_path / "runs").iterdir()
    (one,) = (tmp_path / "alone").iterdir()
    assert_equal_runs(one, run)
    text = (run / "config.yaml").read_text()
    assert "nodes: 2" in text
    assert "precision: fp32" in text
    result = json.loads((run / "result.json").read_text())
    assert (result["cost"]["devices"], result["cost"]["ranks"]) == (2, 2)


@pytest.mark.slow
def test_torchrun_starts_two_processes_and_an_error_is_told_once(words, tmp_path):
    command = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={find_port()}")
    command = (*command, "-m", "recsys.fit")
    wrong = start([*words, "trainer.devices=3", f"output={tmp_path}"], tmp_path / "cache", command)
    ((code, _, stderr),) = finish(wrong)
    assert code != 0
    assert stderr.count("error: trainer.nodes=1 trainer.devices=3 is not what torchrun") == 1
    fine = start([*words, f"output={tmp_path / 'runs'}"], tmp_path / "cache", command)
    ((code, stdout, stderr),) = finish(fine)
    assert code == 0, stderr
    assert stdout.count("on: 2 x cpu") == stdout.count("result: ") == 1


def wait_for_state(folder, processes, above=-1):
    """Waits until a run has saved its state after more than so many steps."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes), finish(*processes)
        for path in folder.glob("*/checkpoints/last.ckpt"):
            step = torch.load(path, weights_only=True)["global_step"]
            if step > above:
                return step
        time.sleep(0.1)
    raise AssertionError("nothing was saved")


@pytest.fixture
def scontrol(tmp_path):
    """The file that a stand-in `scontrol` writes its words to, and the PATH that finds it."""
    log, path = tmp_path / "scontrol.log", tmp_path / "bin" / "scontrol"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return log, f"{path.parent}:{os.environ['PATH']}"


@pytest.mark.slow
def test_a_job_that_is_killed_and_one_that_is_preempted_reach_what_no_stop_would(
    words, tmp_path, scontrol
):
    """Killed with its node; then told by SIGUSR1 that its time is over; the third start ends."""
    log, path = scontrol
    long = [*words, "trainer.epochs=30", "checkpoint.every_minutes=0"]
    asked, cache = [*long, f"output={tmp_path / 'runs'}"], tmp_path / "cache"

    def start_nodes(restarts):
        port = find_port()
        more = {"PATH": path, "SLURM_RESTART_COUNT": str(restarts)}
        steps = [make_step(rank, port=port) | more for rank in (0, 1)]
        return [start(asked, cache, **step) for step in steps]

    nodes = start_nodes(0)
    step = wait_for_state(tmp_path / "runs", nodes)
    for node in nodes:
        node.send_signal(signal.SIGKILL)
    finish(*nodes)
    nodes = start_nodes(1)
    wait_for_state(tmp_path / "runs", nodes, above=step)
    for node in nodes:
        node.send_signal(signal.SIGUSR1)
    first, second = finish(*nodes)
    assert (first[0], second[0]) == (128 + signal.SIGUSR1, 0), first[2] + second[2]
    assert "stopped by SIGUSR1" in first[2]
    assert "job 4711 is queued again" in first[2]
    assert log.read_text() == "requeue 4711\n", "by the first rank alone"
    alone = start([*long, f"output={tmp_path / 'alone'}"], cache)
    first, second, single = finish(*start_nodes(2), alone)
    assert [first[0], second[0], single[0]] == [0, 0, 0], first[2] + second[2] + single[2]
    (run,) = (tmp_path / "runs").iterdir()
    (one,) = (tmp_path / "alone").iterdir()
    assert_equal_runs(one, run)
    assert json.loads((run / "result.json").read_text())["cost"]["resumes"] == 2


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes_and_says_so(words, tmp_path):
    asked = [*words, "trainer.epochs=30", "checkpoint.every_minutes=0", "trainer.devices=2"]
    two = start([*asked, f"output={tmp_path / 'runs'}"], tmp_path / "cache")
    wait_for_state(tmp_path / "runs", [two])
    two.send_signal(signal.SIGTERM)
    assert finish(two)[0][0] == 128 + signal.SIGTERM
    (run,) = (tmp_path / "runs").iterdir()
    again = start([f"resume={run}", "trainer.devices=1"], tmp_path / "cache")
    alone = start([*asked[:-1], f"output={tmp_path / 'alone'}"], tmp_path / "cache")
    (code, _, stderr), single = finish(again, alone)
    assert (code, single[0]) == (0, 0), stderr + single[2]
    assert "note: 2 processes saved the state, and 1 go on from it" in stderr
    (one,) = (tmp_path / "alone").iterdir()
    assert_equal_runs(one, run)
    assert json.loads((run / "result.json").read_text())["cost"]["ranks"] == 2


def test_a_finished_run_is_not_repeated_when_its_job_starts_again(
    shop_words, tmp_path, capsys, monkeypatch
):
    from recsys.fit.__main__ import main

    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    asked = [*shop_words, "experiment=popularity"]
    assert main(asked) == 0
    assert main(asked) == 0, "a script may run the same twice"
    assert len(list((tmp_path / "runs").iterdir())) == 2
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    capsys.readouterr()
    assert main(asked) == 0
    assert "of an earlier start of this job" in capsys.readouterr().out
    assert main([*asked, "seed=5"]) == 0, "another run of the same job"
    monkeypatch.setenv("SLURM_JOB_ID", "4712")
    assert main(asked) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_seeds_of_a_job_that_starts_again_are_the_same_folder(shop_words, tmp_path, monkeypatch):
    from recsys.fit.seeds import make_plan

    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    asked = [*shop_words, "experiment=popularity", "seeds=2"]
    before = make_plan(asked)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert make_plan(asked) == before
    assert make_plan([*asked[:-1], "seeds=3"]).folder != before.folder


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["trainer.nodes=2"], ["trainer.nodes=2", "srun", "torchrun --nnodes"]),
        (["trainer.nodes=0"], ["trainer.nodes is 0"]),
    ],
)
def test_nodes_that_nobody_has_started_are_refused(shop_words, capsys, more, parts):
    from recsys.fit.__main__ import main

    assert main([*shop_words, *more]) == 2
    line = capsys.readouterr().err
    assert all(part in line for part in parts), line


def test_srun_says_who_is_who():
    launch = find_launch(make_step(3, tasks=4, nodes=2))
    assert (launch.rank, launch.node, launch.local_rank) == (3, 1, 1)
    assert (launch.nodes, launch.devices, launch.processes) == (2, 2, 4)
    assert launch.address == "localhost"
    own = {k: v for k, v in make_step(0).items() if k != "MASTER_PORT"}
    ports = {find_launch(own | {"SLURM_STEP_ID": str(step)}).port for step in range(3)}
    assert len(ports) == 3, "steps side by side meet apart"
    assert find_launch({}) is None
    batch = {k: v for k, v in make_step(0).items() if "_STEP_" not in k}
    assert find_launch(batch) is None, "a batch script without srun"
    assert find_launch(make_step(0, SLURM_JOB_NAME="bash")) is None, "a shell"
    assert find_launch(make_step(0, tasks=1, nodes=1)) is None


def test_torchrun_says_who_is_who():
    env = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5", "LOCAL_RANK": "1"}
    env |= {"GROUP_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
    launch = find_launch(env)
    assert (launch.rank, launch.node, launch.local_rank) == (5, 1, 1)
    assert (launch.nodes, launch.devices, launch.attempt) == (2, 4, 0)
    assert not launch.hosted
    assert find_launch(env | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).hosted


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a"}, "MASTER_PORT is not"),
        (make_step(0) | {"SLURM_STEP_TASKS_PER_NODE": "2,1"}, "--ntasks-per-node"),
        (make_step(0) | {"SLURM_STEP_NUM_TASKS": "3"}, "3 tasks on 2 nodes"),
        (make_step(0) | {"SLURM_PROCID": "x"}, "SLURM_PROCID is 'x'"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_JOB_ID is not set"),
    ],
)
def test_an_environment_that_does_not_say_who_is_who_is_refused(env, part):
    with pytest.raises(ConfigError, match=part):
        find_launch(env)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("gpu[07-09,12],login2", "gpu07"),
        ("node1", "node1"),
        ("a,b", "a"),
        ("rack[2]-n[1-4]", "rack2-n1"),
        ("n[3,5]-ib,x", "n3-ib"),
        ("", ""),
    ],
)
def test_the_first_machine_of_a_list(names, first):
    assert find_first_host(names) == first


def test_a_first_process_that_never_comes_is_named():
    launch = find_launch(make_step(1, port=find_port()))
    with pytest.raises(ConfigError, match="process 1 of 2 finds the first one not at localhost"):
        Rendezvous(launch, patience=1)


def test_a_process_that_never_comes_is_missed(tmp_path):
    meeting = Rendezvous(find_launch(make_step(0, port=find_port())), patience=0.5)
    with pytest.raises(ConfigError, match="1 of 2 processes have not come"):
        meeting.give(tmp_path)


def test_a_job_is_not_queued_again_where_scontrol_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no scontrol" in slurm.requeue_job("1")
    path = tmp_path / "scontrol"
    path.write_text("#!/bin/sh\necho 'Invalid job id specified' >&2\nexit 1\n")
    path.chmod(0o755)
    assert slurm.requeue_job("1") == "scontrol requeue 1: Invalid job id specified"
    assert slurm.list_requeue_signals("usr1", {"SLURM_JOB_ID": "1"}) == (signal.SIGUSR1,)
    both = (signal.SIGUSR1, signal.SIGTERM)
    assert slurm.list_requeue_signals("term", {"SLURM_JOB_ID": "1"}) == both
    assert slurm.list_requeue_signals("term", {}) == ()
    assert slurm.list_requeue_signals("off", {"SLURM_JOB_ID": "1"}) == ()
