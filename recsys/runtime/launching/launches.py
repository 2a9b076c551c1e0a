"""How srun or torchrun has started the processes of a run, read from the environment alone.

Every process reads the same of it, so that who is who needs no message.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from recsys.errors import ConfigError
from recsys.words import parse_count

_SHELLS = ("bash", "interactive")
"""Names of jobs that are a shell, as `srun --pty bash`: what starts there is no task of a step."""


@dataclass(frozen=True)
class Launch:
    """How another launcher has started this process, one of several of a run.

    Attributes:
        launcher: "srun" or "torchrun".
        rank: This process among all, from 0.
        local_rank: This process among those of its machine.
        node: Its machine among all.
        nodes: How many machines there are.
        devices: Processes on each of them.
        address: Machine of the first process.
        port: On which it is met there.
        attempt: How often the launcher has started them before.
        hosted: Whether the launcher itself answers at address and port; else the first process
            has to.
    """

    launcher: str
    rank: int
    local_rank: int
    node: int
    nodes: int
    devices: int
    address: str
    port: int
    attempt: int = 0
    hosted: bool = False

    @property
    def processes(self) -> int:
        """All of them, over all machines."""
        return self.nodes * self.devices


def find_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """How this process was started together with others; None where it was started alone.

    Raises:
        ConfigError: The environment is that of several processes and does not say which of them
            this one is, or machines have different numbers of processes.
    """
    if read_env_number("WORLD_SIZE", 1, environment) > 1:
        return _read_torchrun(environment)
    tasks = read_env_number("SLURM_STEP_NUM_TASKS", 1, environment)
    # A batch script has the variables of its job, but only what srun starts is a step of it.
    if tasks > 1 and environment.get("SLURM_JOB_NAME") not in _SHELLS:
        return _read_srun(environment, tasks)
    return None


def _read_torchrun(environment: Mapping[str, str]) -> Launch:
    """What torchrun says, and whoever sets the variables that torch itself reads (`env://`)."""
    absent = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in environment]
    if absent:
        raise ConfigError(
            f"WORLD_SIZE is set by another launcher, and {absent[0]} is not; start the processes "
            "by torchrun or srun, or one process with trainer.devices=N, which starts the others."
        )
    world = read_env_number("WORLD_SIZE", 1, environment)
    rank = read_env_number("RANK", 0, environment)
    here = read_env_number("LOCAL_WORLD_SIZE", 1, environment)
    return Launch(
        "torchrun",
        rank,
        read_env_number("LOCAL_RANK", 0, environment),
        read_env_number("GROUP_RANK", rank // max(1, here), environment),
        _divide(world, here, f"WORLD_SIZE={world} and LOCAL_WORLD_SIZE={here}"),
        here,
        environment["MASTER_ADDR"],
        read_env_number("MASTER_PORT", 0, environment),
        read_env_number("TORCHELASTIC_RESTART_COUNT", 0, environment),
        environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _read_srun(environment: Mapping[str, str], tasks: int) -> Launch:
    """What srun says of a step."""
    absent = [
        n
        for n in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
        if n not in environment
    ]
    if absent:
        raise ConfigError(
            f"SLURM_STEP_NUM_TASKS={tasks} says that srun has started this process, and "
            f"{absent[0]} is not set; unset SLURM_STEP_NUM_TASKS, or start it by srun."
        )
    nodes = read_env_number("SLURM_STEP_NUM_NODES", 1, environment)
    shared = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    if "," in shared:
        raise ConfigError(
            f"srun has started {shared} tasks on the machines of this step; each has to have as "
            "many as the others: set --ntasks-per-node=N in place of --ntasks."
        )
    names = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    own = f"{environment['SLURM_JOB_ID']}.{environment.get('SLURM_STEP_ID', '0')}"
    return Launch(
        "srun",
        read_env_number("SLURM_PROCID", 0, environment),
        read_env_number("SLURM_LOCALID", 0, environment),
        read_env_number("SLURM_NODEID", 0, environment),
        nodes,
        _divide(tasks, nodes, f"{tasks} tasks on {nodes} nodes"),
        environment.get("MASTER_ADDR") or find_first_host(names) or "127.0.0.1",
        # One of their own for steps that run side by side.
        read_env_number("MASTER_PORT", 15_000 + zlib.crc32(own.encode()) % 10_000, environment),
        read_env_number("SLURM_RESTART_COUNT", 0, environment),
    )


def _divide(processes: int, by: int, what: str) -> int:
    """How often one number is in the other.

    Raises:
        ConfigError: Machines would have different numbers of processes.
    """
    if not by or processes % by:
        raise ConfigError(
            f"{what}: each machine has to have as many processes as the others; start them so."
        )
    return processes // by


def find_first_host(names: str) -> str:
    """The first machine of a list as SLURM writes it: `gpu[07-09,12],login2` begins with gpu07."""
    # Each range by its first number; what is left of commas stands between names.
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", names.strip()).partition(",")[0]


def read_env_number(name: str, default: int, environment: Mapping[str, str] = os.environ) -> int:
    """A whole number from 0 that an environment variable holds.

    Args:
        name: Of the variable.
        default: Where it is not set.
        environment: The variables.

    Raises:
        ConfigError: It is no such number.
    """
    value = environment.get(name, str(default))
    number = parse_count(value)
    if number is None:
        raise ConfigError(
            f"the environment variable {name} is '{value}'; unset it, or set it to a whole number."
        )
    return number
