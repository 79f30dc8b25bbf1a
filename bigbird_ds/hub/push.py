"""Upload an export to a model repository of the Hugging Face Hub, with ``huggingface_hub``.

The address comes from HF_ENDPOINT, the token from HF_TOKEN or ``hf auth login``, as in any Hub
client. The token is only sent in requests; it never appears in error messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigbird_ds.errors import ConfigError
from bigbird_ds.log import logger


def check_can_push(repository: str) -> None:
    """Check before the export that an upload can succeed: library, name, token, login.

    Raises:
        ConfigError: it cannot.
    """
    hub = _library()
    with _errors_without_token(hub, repository):
        hub.utils.validate_repo_id(repository)
    if "/" not in repository:
        raise ConfigError(
            "the repository has no owner",
            seen=f"--push {repository}",
            needed="OWNER/NAME",
            change="--push",
        )
    if hub.get_token() is None:
        raise ConfigError(
            "no token for the upload",
            seen="HF_TOKEN is not set, and no login on this machine",
            needed="a token with write access",
            change="set HF_TOKEN, or run `hf auth login`",
        )
    with _errors_without_token(hub, repository):
        logger.info("uploading as %s", hub.HfApi().whoami()["name"])


def push(folder: Path, repository: str) -> str:
    """Upload every file of ``folder`` in one commit; return the commit's address.

    If the repository does not exist, a private one is created.

    Raises:
        ConfigError: the Hub rejects the upload or cannot be reached. ``folder`` is unchanged.
    """
    hub = _library()
    with _errors_without_token(hub, repository, folder):
        api = hub.HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload a model pretrained with bigbird_ds",
        )
        return str(commit.commit_url)


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.utils
    except ImportError:
        raise ConfigError(
            "uploading needs the package huggingface_hub",
            seen="it is not installed",
            needed="huggingface_hub",
            change="pip install huggingface_hub, or leave out --push",
        ) from None
    return huggingface_hub


@contextlib.contextmanager
def _errors_without_token(hub: Any, repository: str, folder: Path | None = None) -> Iterator[None]:
    """Report any error of an upload as a user error.

    The errors come from several packages (the library, its HTTP client, the system), so all are
    caught. A server may quote the request, so the token is removed from the text. The original
    error is not chained because it holds the request.
    """
    try:
        yield
    except Exception as cause:
        reason = " ".join(str(cause).split()) or type(cause).__name__
        if token := hub.get_token():
            reason = reason.replace(token, "(the token)")
        again = f"; the export is complete: `hf upload {repository} {folder}` retries"
        raise ConfigError(
            "the upload to the Hub failed",
            seen=f"{repository} at {hub.constants.ENDPOINT}: {reason}",
            needed="a repository OWNER/NAME that the token can write to, and a reachable Hub",
            change="--push, HF_TOKEN or HF_ENDPOINT" + (again if folder else ""),
        ) from None
