"""Who is who among the processes of a run, as Lightning asks for it."""

from __future__ import annotations

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from recsys.runtime.launching.launches import Launch


class LaunchedEnvironment(ClusterEnvironment):
    """Processes that another launcher has started, as its environment tells of them.

    Lightning has classes of its own for srun and torchrun, which look at other variables than
    `find_launch` does; both sides have to see the same.

    Args:
        launch: How this process was started.
    """

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self.launch = launch

    @property
    def creates_processes_externally(self) -> bool:
        """Always."""
        return True

    @property
    def main_address(self) -> str:
        """Machine of the first process."""
        return self.launch.address

    @property
    def main_port(self) -> int:
        """Where it is met."""
        return self.launch.port

    @staticmethod
    def detect() -> bool:
        """Never: it is given."""
        return False

    def world_size(self) -> int:
        """All processes."""
        return self.launch.processes

    def set_world_size(self, size: int) -> None:
        """Nothing: the launcher decides."""

    def global_rank(self) -> int:
        """This process among all."""
        return self.launch.rank

    def set_global_rank(self, rank: int) -> None:
        """Nothing: the launcher decides."""

    def local_rank(self) -> int:
        """This process among those of its machine."""
        return self.launch.local_rank

    def node_rank(self) -> int:
        """Its machine among all."""
        return self.launch.node


def make_environment(launch: Launch | None) -> ClusterEnvironment:
    """How the Trainer knows its processes, whatever it would find in the environment by itself.

    In a job of SLURM it would take itself for one of srun's tasks, also where it is started
    without srun.

    Args:
        launch: How another launcher has started them; None: the first one starts the others.
    """
    return LightningEnvironment() if launch is None else LaunchedEnvironment(launch)
