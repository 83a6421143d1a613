"""``vlmkit configs``: the YAML files that travel with the package, listed or written out."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from vlmkit.cli.terminal import say
from vlmkit.declare.packaged import config_names, configs_folder, packaged_config
from vlmkit.errors import VlmkitError
from vlmkit.files import make_folder, write_file


def run_configs(args: argparse.Namespace) -> None:
    """Print a line per config, or copy all of them into a folder."""
    if args.action == "copy":
        num_files = copy_configs(Path(args.folder))
        say(f"{args.folder}: {num_files} files")
        return
    names = config_names()
    width = max(map(len, names))
    for name in names:
        say(f"{name:<{width}}  {summary(packaged_config(name).read_text(encoding='utf-8'))}")


def summary(text: str) -> str:
    """Return the first sentence of the comment at the head of a YAML file.

    Example:
        >>> summary("# yaml-language-server: …\\n# At most\\n# 32 tokens. Short.\\na: 1")
        'At most 32 tokens.'
    """
    comment = []
    for line in text.splitlines()[1:]:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(comment), maxsplit=1)[0]


def copy_configs(target: Path) -> int:
    """Write the configs and their schema into a folder, and return how many files they are.

    All of them or none: a file that is there with another content is not written over.

    Raises:
        VlmkitError: names a file that is in the way, or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     copy_configs(Path(folder)) > 40, (Path(folder) / "schema.json").is_file()
        (True, True)
    """
    folder = configs_folder()
    sources = [*sorted(folder.glob("*.json")), *map(packaged_config, config_names())]
    contents = {target / source.relative_to(folder): source.read_bytes() for source in sources}
    taken = [path for path, content in contents.items() if not _is_free(path, content)]
    if taken:
        more = f" (and {len(taken) - 1} more)" if taken[1:] else ""
        raise VlmkitError(
            f"{taken[0]}: is there already{more}, and would be written over; give another folder"
        )
    for path, content in contents.items():
        make_folder(path.parent)
        write_file(path, content)
    return len(contents)


def _is_free(path: Path, content: bytes) -> bool:
    if not os.path.lexists(path):
        return True
    return path.is_file() and os.access(path, os.R_OK) and path.read_bytes() == content
