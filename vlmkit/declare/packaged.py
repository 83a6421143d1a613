"""Files that travel with the package: the configs, and the sample images of the embedded model.

``vlmkit:PATH`` names one of them from any folder: in ``include:`` and wherever a config is wanted
a file of ``configs/``, wherever an image is wanted one of ``assets/``.
"""

from __future__ import annotations

import os
from pathlib import Path

from vlmkit.errors import VlmkitError, nearest
from vlmkit.files import find_file

PREFIX = "vlmkit:"
ASSETS = Path(__file__).resolve().parents[1] / "assets"


def configs_folder() -> Path:
    """Return the folder of the configs: in the package, or in a checkout the one beside it.

    Example:
        >>> (configs_folder() / "schema.json").is_file()
        True
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def packaged_config(name: str) -> Path:
    """Return the file that ``vlmkit:PATH`` names among the configs.

    Raises:
        VlmkitError: there is none.

    Example:
        >>> packaged_config("vlmkit:sampling/nucleus.yaml").name
        'nucleus.yaml'
    """
    return _find(name, configs_folder(), "*.yaml", "config", " (`vlmkit configs` lists them)")


def packaged_image(name: str) -> Path:
    """Return the file that ``vlmkit:PATH`` names among the assets.

    Raises:
        VlmkitError: there is none.

    Example:
        >>> packaged_image("vlmkit:shapes/samples/count_all.png").name
        'count_all.png'
    """
    return _find(name, ASSETS, "*.png", "image", "")


def config_names() -> list[str]:
    """Return every config as ``vlmkit:PATH``, sorted.

    Example:
        >>> "vlmkit:sampling/presets/transformers.yaml" in config_names()
        True
    """
    return _names(configs_folder(), "*.yaml")


def _find(name: str, folder: Path, pattern: str, what: str, more: str) -> Path:
    path = Path(os.path.normpath(folder / name.removeprefix(PREFIX)))
    if path.is_relative_to(folder) and path.match(pattern) and find_file(path):
        return path
    near = nearest(name, _names(folder, pattern))
    raise VlmkitError(f"{name}: no {what} of the package{near}{more}")


def _names(folder: Path, pattern: str) -> list[str]:
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(pattern))
    return [PREFIX + name for name in found]
