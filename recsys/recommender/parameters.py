"""The part of a recommender that trains: parameters by role, their start, and what is kept."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, final

import lightning.pytorch as lp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.sharded.passes import SharedPasses
from recsys.encoders.sharded.tensors import (
    compute_norm,
    gather_whole,
    is_sharded,
    split_like,
    take_local,
)
from recsys.errors import ConfigError
from recsys.layers.item_embeddings import ItemEmbedding
from recsys.recommender.optim import Named
from recsys.runtime.files import write_atomic
from recsys.types import Tuned

ENCODERS = ("_encoder.", "_user_encoder.")
"""Where encoders lie in a recommender: the one of the items, and a separate one of the users."""

TABLE = "table."
"""Where an item table lies, which trains but is no part of what is kept in the end."""


class TrainableModule(lp.LightningModule):
    """Base of a recommender that trains: which of its parameters do.

    Attributes:
        table: Gives (U, D) vectors of catalog rows (U,) in place of the items' encoder while it
            trains, or None.
        passes: What passes of its encoders are agreed by where their weights are spread over
            processes, else None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table: nn.Module | None = None
        self.passes: SharedPasses | None = None
        self._start: dict[str, Tensor] = {}
        # Checkpoints hold what trained; the rest comes from the pretrained model.
        self.strict_loading = False

    @property
    @abc.abstractmethod
    def tuned(self) -> Tuned | None:
        """What the tuning method did to the encoder, or None."""

    @property
    @abc.abstractmethod
    def l2_sp(self) -> float:
        """Strength of the pull towards the anchor (Li et al., ICML 2018)."""

    @final
    def get_trained_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter that trains, by name: what a checkpoint to go on from holds."""
        return {k: p for k, p in self.named_parameters() if p.requires_grad}

    @final
    def get_saved_parameters(self) -> dict[str, nn.Parameter]:
        """What is left of them when training is over: all but an item table."""
        return {k: p for k, p in self.get_trained_parameters().items() if not k.startswith(TABLE)}

    @final
    def group_by_role(self) -> dict[str, Named]:
        """Trained parameters by role: pretrained weights, added parameters, heads, item table."""
        tuned = self.tuned
        added = {f"{e}{n}" for e in ENCODERS for n in tuned.added} if tuned else set()
        out: dict[str, list[tuple[str, nn.Parameter]]] = {
            role: [] for role in ("encoder", "tuned", "head", "table")
        }
        for name, p in self.get_trained_parameters().items():
            rest = "table" if name.startswith(TABLE) else "head"
            inside = name.startswith(ENCODERS)
            role = "tuned" if name in added else "encoder" if inside else rest
            out[role].append((name, p))
        return {k: v for k, v in out.items()}

    @final
    def get_distilled_roles(self) -> dict[str, Named]:
        """The part of `group_by_role` that follows an item table: the items' encoder."""
        if self.table is None:
            return {}
        own = ENCODERS[0]
        return {k: [x for x in v if x[0].startswith(own)] for k, v in self.group_by_role().items()}

    @final
    def get_stepped_roles(self) -> dict[str, Named]:
        """The part of `group_by_role` that every optimiser step moves: the rest of it."""
        other = {name for named in self.get_distilled_roles().values() for name, _ in named}
        return {k: [x for x in v if x[0] not in other] for k, v in self.group_by_role().items()}

    @final
    def compute_l2_sp(self, names: Iterable[str]) -> Tensor:
        """L2-SP of named parameters: to zero for the maps that a method added, else to the start.

        A head that is zero at first, a temperature or a magnitude has its start for an anchor.
        """
        own, zero = self.get_trained_parameters(), self.list_zero_anchors()
        terms = [
            (own[name] if name in zero else own[name] - self._start[name]).float().square().sum()
            for name in names
        ]
        return 0.5 * self.l2_sp * torch.stack(terms).sum()

    @final
    def list_zero_anchors(self) -> set[str]:
        """Names of the maps that a method added and that are drawn to zero."""
        tuned = self.tuned
        if tuned is None or tuned.anchor != "zero":
            return set()
        return {name for name, p in self.group_by_role()["tuned"] if p.ndim > 1}

    @final
    def setup(self, stage: str) -> None:
        """Remembers the start, before a checkpoint is restored over it."""
        if stage == "fit":
            # A pretrained model comes in evaluation mode, and the Trainer leaves modes as they are.
            self.train()
            self._start = {k: p.detach().clone() for k, p in self.get_trained_parameters().items()}

    @final
    def configure_model(self) -> None:
        """Spreads the weights of its encoders over processes, where the strategy does so."""
        if self.device_mesh is None or self.passes is not None:
            return
        from recsys.encoders.sharded.weights import shard_encoders

        encoders = [module for module in self.modules() if isinstance(module, Encoder)]
        self.passes = shard_encoders(encoders, self.device_mesh["data_parallel"])
        own = self.get_trained_parameters()
        self._start = {k: split_like(value, own[k]) for k, value in self._start.items()}

    @final
    def on_fit_start(self) -> None:
        """Brings the start to where the parameters are by now."""
        self._start = {k: v.to(self.device) for k, v in self._start.items()}

    @final
    @torch.no_grad()
    def compute_distances(self) -> dict[str, Tensor]:
        """Euclidean distance from the start by role, () each; nothing waits for the device.

        Every process has to call it where weights are spread over them.
        """
        if self.passes is not None:
            return {
                role: compute_norm([p.detach() - self._start[k] for k, p in named])
                for role, named in self.group_by_role().items()
                if named
            }
        return {
            role: torch.stack([(p - self._start[k]).float().norm() for k, p in named]).norm()
            for role, named in self.group_by_role().items()
            if named
        }

    @final
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves only what trained in a checkpoint."""
        state, own = checkpoint["state_dict"], self.get_trained_parameters()
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k in own}

    @final
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint that holds other parameters than those that train.

        Raises:
            ConfigError: It is of another architecture or tuning method.
        """
        self._check_names(checkpoint["state_dict"].keys(), self.get_trained_parameters(), "resume")

    @final
    def save_trained(self, path: Path, first: bool = True) -> None:
        """Writes only what trained, heads included, as safetensors: one file, with whole weights.

        Args:
            path: The file.
            first: Whether this process is the one that writes; the others only give their parts of
                what is spread over processes.
        """
        state: dict[str, Tensor] = {}
        for name, p in self.get_saved_parameters().items():
            if not first and not is_sharded(p):
                continue
            whole = gather_whole(p)
            if first:
                state[name] = whole.cpu().contiguous()
        if first:
            write_atomic(path, save(state))

    @final
    def load_trained(self, path: Path, grown: bool = False, origin: Tensor | None = None) -> None:
        """Restores what `save_trained` wrote.

        Args:
            path: The file.
            grown: Whether the catalog may have more items than that of the file, at its end: they
                keep the values that they have.
            origin: (I,) row of each item in the catalog of the file, -1 for one that was not in
                it, which keeps the value that it has; None: the catalog is that of the file.

        Raises:
            ConfigError: The file is damaged, or belongs to another architecture or tuning method.
        """
        try:
            state, own = load_file(path), self.get_saved_parameters()
        except (OSError, SafetensorError, ValueError):
            raise ConfigError(f"{path} is missing or damaged; run fit again.") from None
        self._check_names(state.keys(), own, str(path))
        for name, p in own.items() if grown else ():
            value = state[name]
            if p.ndim == value.ndim == 2 and len(value) < len(p) and p.shape[1] == value.shape[1]:
                state[name] = torch.cat([value, p[len(value) :].detach().cpu()])
        if origin is not None:
            for name in self._list_item_tables() & own.keys():
                state[name] = _take_rows(path, name, state[name], own[name], origin)
        for name, p in own.items():
            _check_value(path, name, state[name], p)
        with torch.no_grad():
            for name, p in own.items():
                take_local(p).copy_(take_local(split_like(state[name], p)))

    def _list_item_tables(self) -> set[str]:
        """Names of parameters with a row for each item of the catalog."""
        tables = (n for n, module in self.named_modules() if isinstance(module, ItemEmbedding))
        return {f"{name}.vectors" for name in tables}

    @final
    def _check_names(
        self, names: AbstractSet[str], own: Mapping[str, nn.Parameter], where: str
    ) -> None:
        odd = sorted(names ^ own.keys())
        if odd:
            raise ConfigError(
                f"{where}: the checkpoint is of another architecture or tuning method "
                f"({len(odd)} parameters differ, the first is '{odd[0]}')."
            )


def _take_rows(path: Path, name: str, value: Tensor, own: Tensor, origin: Tensor) -> Tensor:
    """Rows of a table of items as they were in another catalog; one that was not in it stays.

    Raises:
        ConfigError: The table has no such rows.
    """
    if len(origin) and int(origin.max()) >= len(value):
        raise ConfigError(f"{path}: '{name}' lacks rows: the file is damaged; run fit again.")
    taken = value[origin.clamp(min=0)]
    return torch.where((origin >= 0)[:, None], taken, own.detach().cpu())


_WIDENED = (torch.bfloat16, torch.float32)
"""What is stored and what takes it, where each number stays what it is: from bf16-true to fp32."""


def _check_value(path: Path, name: str, value: Tensor, own: Tensor) -> None:
    """Refuses what copying would stretch, round or spread without a word.

    Raises:
        ConfigError: Shape or kind of number is another, or a value is not finite.
    """
    odd = ""
    if value.shape != own.shape:
        odd = f"has the shape {list(value.shape)} in place of {list(own.shape)}"
    elif value.dtype != own.dtype and (value.dtype, own.dtype) != _WIDENED:
        names = (str(t.dtype).removeprefix("torch.") for t in (value, own))
        odd = "holds {} in place of {}".format(*names)
    elif not bool(value.isfinite().all()):
        odd = "holds values that are not finite"
    if odd:
        raise ConfigError(f"{path}: '{name}' {odd}: the file is damaged; run fit again.")
