"""The built package in an environment without the checkout: what travels, and that it works."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vlmkit

ROOT = Path(vlmkit.__file__).parent.parent
PARTS = ("vlmkit", "configs", "pyproject.toml", "README.md", "LICENSE")
BUILD = """\
import shutil, sys
from pathlib import Path
from setuptools import build_meta
target = Path(sys.argv[1])
archive = target / build_meta.build_sdist(str(target))
build_meta.build_editable(str(target / "editable"))
shutil.unpack_archive(archive, target)
"""
WHEEL = "import sys\nfrom setuptools import build_meta\nbuild_meta.build_wheel(sys.argv[1])\n"
RUN = "include: vlmkit:sampling/presets/transformers.yaml\nseed: 3\n"


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment,
    )  # fmt: skip


def done(*words: str | Path, cwd: Path) -> str:
    reply = run(*words, cwd=cwd)
    assert reply.returncode == 0, reply.stderr
    return reply.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel that was made from the source archive, and an editable one."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    (target / "editable").mkdir()
    done(sys.executable, "-c", BUILD, target, cwd=source)
    (unpacked,) = target.glob("vlmkit-*/")
    done(sys.executable, "-c", WHEEL, target, cwd=unpacked)
    return target


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment of a wheel and what vlmkit depends on; return where its programs are."""
    done(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheel.parent)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python")]
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    done(*pip, "install", *options, wheel, cwd=wheel.parent)
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(done(programs / "python", "-c", purelib, cwd=folder).strip())
    # Read as a list of folders, so that no .pth file in them counts, such as of this checkout.
    (own / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return programs


@pytest.fixture(scope="module")
def programs(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (wheel,) = built.glob("*.whl")
    return install(wheel, tmp_path_factory.mktemp("bare") / "venv")


def test_the_installed_package_is_not_the_checkout(programs: Path, tmp_path: Path) -> None:
    show = "import vlmkit; print(vlmkit.__file__)"
    where = Path(done(programs / "python", "-c", show, cwd=tmp_path).strip())
    assert where.is_relative_to(programs.parent)
    travelled = where.parent / "configs"
    names = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.*")}
    assert {path.relative_to(travelled) for path in travelled.rglob("*.*")} == names
    assert not (where.parent.parent / "configs").exists()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("--version", f"vlmkit {vlmkit.__version__}"),
        ("models", "qwen2_vl"),
        ("schema", '"title": "vlmkit run"'),
        (
            "configs",
            "The order and tie rules of Hugging",
        ),
        ("describe run.yaml", "transformers.yaml:14"),
        ("generate vlmkit:runs/shapes_thinking.yaml", "</think>3"),
        ("generate --prompt Count. --image vlmkit:shapes/samples/count_all.png", "4"),
        ("stages top_p", "example: vlmkit:sampling/nucleus.yaml"),
        ("completion bash", "complete -F _vlmkit vlmkit"),
        ("trace vlmkit:runs/shapes_answer.yaml", "entropy"),
    ],
)
def test_the_main_commands_run_anywhere(
    programs: Path, tmp_path: Path, words: str, shown: str
) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    assert shown in done(programs / "vlmkit", *words.split(), cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"], "the command wrote something"


def test_copied_configs_run(programs: Path, tmp_path: Path) -> None:
    command = programs / "vlmkit"
    done(command, "configs", "copy", "mine", cwd=tmp_path)
    assert done(command, "generate", "mine/runs/shapes_budget.yaml", cwd=tmp_path)
    assert not list(tmp_path.rglob("*.py*"))


def test_an_editable_install_finds_the_configs_of_its_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = (built / "editable").glob("*.whl")
    programs = install(wheel, tmp_path / "venv")
    (tmp_path / "run.yaml").write_text(RUN)
    shown = done(programs / "vlmkit", "describe", "run.yaml", cwd=tmp_path)
    assert "/configs/sampling/presets/transformers.yaml:14" in shown
    assert "site-packages" not in shown


def test_every_folder_is_in_the_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        path.parent.relative_to(ROOT)
        for part in ("vlmkit", "configs")
        for path in (ROOT / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = {".".join(folder.parts) for folder in folders}
    expected = {f"vlmkit.{name}" if name.startswith("configs") else name for name in names}
    assert listed == sorted(expected)
