"""From a name to a checkpoint folder: the embedded model, a local folder, or the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from vlmkit.errors import VlmkitError, nearest
from vlmkit.files import check_folder, find_file

EMBEDDED_MODELS = ("shapes", "album")
"""Names of checkpoints that come with the package."""

ALLOW_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
_ASSETS = Path(__file__).resolve().parent.parent / "assets"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def resolve_checkpoint(
    path_or_id: str | Path, revision: str | None = None, *, trust_remote_code: bool = False
) -> Path:
    """Return the folder of a checkpoint, fetching it from the hub when it is not local.

    Args:
        path_or_id: ``"shapes"`` or ``"album"`` for an embedded model (``"./shapes"`` is a folder of
            that name), a local folder, or a hub id ``"owner/name"``.
        revision: Branch, tag or commit of a hub id.
        trust_remote_code: Also fetch the checkpoint's Python files.

    Raises:
        VlmkitError: There is no such folder, it has no ``config.json``, or the hub cannot serve it.

    Example:
        >>> resolve_checkpoint("shapes").name
        'shapes'
    """
    if path_or_id in EMBEDDED_MODELS:
        if revision is not None:
            raise VlmkitError(f"revision={revision!r}: {path_or_id!r} has none")
        return _checked(_ASSETS / path_or_id)
    folder = Path(os.path.expanduser(path_or_id))
    try:
        exists = folder.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or has a null byte
        raise VlmkitError(f"checkpoint {str(path_or_id)!r}: not a valid path") from error
    if exists:
        if revision is not None:
            raise VlmkitError(
                f"revision={revision!r}: {str(folder)!r} is a local folder, without revisions"
            )
        return _checked(folder)
    name = str(path_or_id)
    if isinstance(path_or_id, Path) or not _HUB_ID.fullmatch(name):
        hint = nearest(name, EMBEDDED_MODELS)
        raise VlmkitError(
            f"no checkpoint folder {name!r}; give an existing folder, a hub id 'owner/name', "
            f"or {' or '.join(map(repr, EMBEDDED_MODELS))}{hint}"
        )
    patterns = [*ALLOW_PATTERNS, *(["*.py"] if trust_remote_code else [])]
    return _checked(_download(name, revision, patterns))


def find_small_file(
    path_or_id: str, name: str, revision: str | None = None, *, fetch: bool
) -> Path | None:
    """Return a file of a checkpoint without fetching the checkpoint; None where it has none.

    Args:
        path_or_id: as in :func:`resolve_checkpoint`.
        name: the file's name.
        revision: branch, tag or commit of a hub id.
        fetch: ask the hub; false looks at what is on this machine.

    Raises:
        VlmkitError: with ``fetch``, as in :func:`resolve_checkpoint`.

    Example:
        >>> find_small_file("shapes", "config.json", fetch=False).name
        'config.json'
    """
    is_hub_id = path_or_id not in EMBEDDED_MODELS and _HUB_ID.fullmatch(path_or_id) is not None
    if not is_hub_id or os.path.exists(path_or_id):
        path = resolve_checkpoint(path_or_id, revision) / name
    elif fetch:
        path = _download(path_or_id, revision, [name]) / name
    else:
        return _cached(path_or_id, name, revision)
    return path if find_file(path) else None


def _cached(hub_id: str, name: str, revision: str | None) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(hub_id, name, revision=revision)
    except ValueError:  # no name that the hub has
        return None
    return Path(found) if isinstance(found, str) else None


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise VlmkitError(
            f"{str(folder)!r} is a file: give the folder with config.json and *.safetensors"
            if folder.is_file()
            else f"no checkpoint folder {str(folder)!r}"
        )
    if not (folder / "config.json").is_file():
        raise VlmkitError(
            f"no config.json in {str(folder)!r}: "
            "a checkpoint folder holds config.json and *.safetensors"
        )
    try:
        check_folder(folder)
    except OSError as error:
        raise VlmkitError(f"checkpoint {str(folder)!r}: {error.strerror}") from None
    return folder


def _download(hub_id: str, revision: str | None, patterns: Sequence[str]) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise VlmkitError(
            f"no folder {hub_id!r}, and the hub needs 'pip install huggingface_hub'"
        ) from error
    where = f"{hub_id!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))
    except errors.GatedRepoError as error:
        reason = f"is gated: accept its terms at https://huggingface.co/{hub_id}, then log in"
        cause: Exception = error
    except errors.RepositoryNotFoundError as error:
        reason = "is no local folder, and the hub has no such (public) repository"
        cause = error
    except errors.RevisionNotFoundError as error:
        reason = "does not exist: the repository has no such branch, tag or commit"
        cause = error
    except errors.HFValidationError as error:
        reason = "is no local folder and no valid hub id 'owner/name'"
        cause = error
    except (OSError, errors.OfflineModeIsEnabled) as error:
        reason = "is no local folder, and the hub cannot be reached and its cache has no copy"
        cause = error
    raise VlmkitError(f"checkpoint {where} {reason}") from cause
