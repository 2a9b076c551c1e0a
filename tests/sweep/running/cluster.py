"""A stand-in for SLURM on this machine: `sbatch`, `srun`, `squeue`, `scancel`, `scontrol`, `sacct`.

Each is this file under another name. A job is a process group that runs its script; what a task is
told, srun's own stand-in sets. Its state lies in the folder `CLUSTER`.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

NAMES = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sacct")


def install(folder: Path) -> str:
    """Puts the commands into a folder; the PATH that finds them."""
    folder.mkdir(parents=True)
    for name in NAMES:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {name} "$@"\n')
        path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def read(job):
    return json.loads((ROOT / f"{job}.json").read_text())


def write(job, **node):
    path = ROOT / f"{job}.json"
    path.with_suffix(".new").write_text(json.dumps(node))
    path.with_suffix(".new").rename(path)


def begin(job, script, restarts):
    """Runs a script as a job, in a process group of its own."""
    hidden = ("SLURM_", "SUBMITIT_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    env |= {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restarts)}
    flags = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", Path(script).read_text()))
    nodes, tasks = int(flags.get("nodes", 1)), int(flags.get("ntasks-per-node", 1))
    env |= {"SLURM_JOB_NUM_NODES": str(nodes), "SLURM_NTASKS": str(nodes * tasks)}
    with open(ROOT / f"{job}.out", "ab") as out:
        process = subprocess.Popen(
            ["bash", script],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    write(job, pid=process.pid, script=script, restarts=restarts, flags=flags)


def sbatch(words):
    (ROOT / "lock").mkdir(exist_ok=True)
    job = str(100 + len(list(ROOT.glob("*.json"))))
    begin(job, words[-1], 0)
    print(f"Submitted batch job {job}")


def srun(words):
    """Every task of a step, with what srun tells it."""
    words = words[next(i for i, w in enumerate(words) if Path(w).name.startswith("python")) :]
    tasks, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_JOB_NUM_NODES"])
    children = []
    for rank in range(tasks):
        own = {
            "SLURM_STEP_ID": 0,
            "SLURM_STEP_NUM_TASKS": tasks,
            "SLURM_STEP_NUM_NODES": nodes,
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_PROCID": rank,
            "SLURM_NODEID": rank * nodes // tasks,
            "SLURM_LOCALID": rank % (tasks // nodes),
        }
        env = os.environ | {k: str(v) for k, v in own.items()}
        children.append(subprocess.Popen(words, env=env))
    (ROOT / f"{os.environ['SLURM_JOB_ID']}.tasks").write_text(
        " ".join(str(child.pid) for child in children)
    )
    sys.exit(max(child.wait() for child in children))


def is_alive(pid):
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def squeue(words):
    for path in ROOT.glob("*.json"):
        if is_alive(read(path.stem)["pid"]):
            print(path.stem, "RUNNING")


def scancel(words):
    """A signal to the tasks of a job, or the end of all that runs of it."""
    job = words[-1]
    if words[0].startswith("--signal="):
        signum = signal.Signals[f"SIG{words[0].partition('=')[2]}"]
        for pid in (ROOT / f"{job}.tasks").read_text().split():
            os.kill(int(pid), signum)
        return
    kill_group(read(job)["pid"])


def kill_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def scontrol(words):
    verb, job = words
    with (ROOT / "scontrol.log").open("a") as log:
        log.write(shlex.join(words) + "\n")
    assert verb == "requeue"
    if os.fork():  # who asks is killed with its job
        return
    os.setsid()
    before = read(job)
    kill_group(before["pid"])
    begin(job, before["script"], before["restarts"] + 1)
    os._exit(0)


def sacct(words):
    print("FAILED")


if __name__ == "__main__":
    ROOT = Path(os.environ["CLUSTER"])
    globals()[sys.argv[1]](sys.argv[2:])
