"""Sends an exported folder to a model hub, when it is asked for by name."""

from __future__ import annotations

import re
from pathlib import Path

from recsys.errors import ConfigError, UnreachableError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def check_name(name: str) -> None:
    """Refuses what is no name of a hub's repository.

    Raises:
        ConfigError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"push={name} is no name on a hub; give USER/NAME, as in push=me/model.")


def push_folder(folder: Path, name: str) -> str:
    """Uploads a folder to a private repository, which is made where there is none.

    Args:
        folder: What `export_run` wrote.
        name: USER/NAME.

    Returns:
        Its address.

    Raises:
        UnreachableError: The hub cannot be reached, or refuses; the folder stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="recsys export")
    except OfflineModeIsEnabled:
        raise UnreachableError(
            f"{folder} is written and was not sent: HF_HUB_OFFLINE is set; unset it, and upload "
            f"the folder with: hf upload {name} {folder}"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UnreachableError(
            f"{folder} is written and was not sent ({reason}); log in (hf auth login), and upload "
            f"it with: hf upload {name} {folder}"
        ) from error
    return str(address)
