"""A specification made a workspace and a report at Weights & Biases."""

from __future__ import annotations

from recsys.boards import workspaces
from recsys.boards.specification import BoardSpec
from recsys.errors import ConfigError


def check_ready() -> None:
    """Refuses a push that cannot work, before anything else is done for it.

    Raises:
        ConfigError: The package or a key is missing.
    """
    workspaces.check_package()
    from recsys.tracking.wandb_log import choose_wandb_mode

    if choose_wandb_mode("auto") != "online":
        raise ConfigError(
            "a push needs Weights & Biases: set WANDB_API_KEY or run wandb login, and unset "
            "WANDB_MODE; without, write the specification (wandb=spec) and push it later with "
            "python -m recsys.boards push=FOLDER."
        )


def push_board(board: BoardSpec) -> list[str]:
    """Saves the workspace and the report of a specification, each as a new one.

    Args:
        board: What they show.

    Returns:
        Their addresses.

    Raises:
        ConfigError: The package or a key is missing, or the service refuses.
    """
    check_ready()
    import wandb

    try:
        entity = board.entity or str(wandb.Api(timeout=30).default_entity or "")
        if not entity:
            raise ConfigError("the key has no default entity; name one with wandb_entity=NAME.")
        saved = workspaces.make_workspace(board, entity).save()
        return [str(saved.url), str(workspaces.make_report(board, entity).save().url)]
    except (wandb.Error, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"Weights & Biases refuses the push ({reason}); check the key, the entity "
            f"'{board.entity or 'default'}' and the project '{board.project}', and that wandb sync "
            "has sent the runs."
        ) from None
