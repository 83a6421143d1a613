"""The project's files hold together: packaging, imports and their direction."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlmkit
from tests.conftest import WHOLE

ROOT = Path(vlmkit.__file__).parent.parent
PACKAGE = ROOT / "vlmkit"

# From the bottom up. A module may import what stands in a lower layer, and its own package; two
# packages of one layer never import each other, so no stage knows another.
LAYERS = (
    {"printable"},
    {"errors"},
    {"files", "names"},
    {"mistakes"},
    {"declare", "numeric"},
    {"backend", "ranks", "results", "checkpoints"},
    {"contracts", "tokens"},
    {"templates"},
    {
        "cache",
        "contrast",
        "sampling",
        "search",
        "stopping",
        "models",
        "processors",
        "detokenize",
        "passes",
    },
    {"preprocess", "loading", "prompt_utils"},
    {"prompts"},
    {"pipeline"},
    {"resolve"},
    {"engine", "config"},
    {"asking"},
    {"api", "branching", "conversion"},
    {"batch", "tracing"},
    {"experiment"},
    {"adapters", "bench"},
    {"cli"},
    {"__main__"},
)
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = (
    "torch",
    "transformers",
    "mlx_lm",
    "mlx_vlm",
    "huggingface_hub",
    "tokenizers",
    "requests",
    "llguidance",
    "pyarrow",
    "datasets",
)


WHOLE_FILES = tuple(name for name in WHOLE if "::" not in name)


def part_of(module: str) -> str:
    """The package or module directly under vlmkit that a dotted name belongs to."""
    return module.split(".")[1] if "." in module else module


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(body: list[ast.stmt], *, inside: bool) -> Iterator[str]:
    """Names of imported modules; with ``inside`` also those in functions and under `if`."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif inside:
            children = [child for child in ast.walk(node) if isinstance(child, ast.stmt)]
            yield from imports([child for child in children if child is not node], inside=False)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    importer = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if importer == "__init__":
        return  # re-exports lazily
    assert importer in LAYER, f"say in LAYERS where {importer} stands"
    for name in imports(parsed(path).body, inside=True):
        target = part_of(name)
        if not name.startswith("vlmkit.") or target in (importer, "__version__"):
            continue
        assert target in LAYER, f"{path}: {name} is no module of vlmkit"
        assert LAYER[target] < LAYER[importer], f"{path} imports {name} from above or beside"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_heavy_import_at_module_level(path: Path) -> None:
    names = {name.split(".")[0] for name in imports(parsed(path).body, inside=False)}
    assert not names & set(HEAVY)


def test_no_module_is_named_as_one_of_python_or_of_a_library() -> None:
    libraries = {
        name.split(".")[0] for path in modules() for name in imports(parsed(path).body, inside=True)
    }
    taken = (libraries | sys.stdlib_module_names) - {"vlmkit", "__future__"}
    assert {"random", "trace", "yaml", "mlx", "httpx2"} <= taken
    names = [path.parent if path.stem == "__init__" else path.with_suffix("") for path in modules()]
    found = {
        str(path.relative_to(ROOT).with_suffix(".py"))
        for path in names
        if path.name.lstrip("_") in taken and path.name != "__main__"
    }
    assert not found


def test_no_file_is_private() -> None:
    # What a package offers is what its __init__ names; a leading underscore would say it again.
    private = [path.name for path in modules() if path.name.startswith("_")]
    assert set(private) == {"__init__.py", "__main__.py"}


def test_scripts_use_public_names_only() -> None:
    for folder in ("experiments", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imports(parsed(path).body, inside=True):
                parts = name.split(".")
                private = parts[0] == "vlmkit" and any(part.startswith("_") for part in parts)
                assert not private, f"{path} imports {name}"


def test_importing_vlmkit_and_its_command_line_loads_nothing_heavy() -> None:
    script = (
        "import sys, vlmkit, vlmkit.cli.main\n"
        "for command in ('generate', 'trace'):\n"
        "    try: vlmkit.cli.main.main([command, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = {'mlx', 'numpy', 'PIL', 'pydantic', 'yaml', 'rich', 'transformers', 'torch',\n"
        "    'msgspec', 'matplotlib', 'httpx2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    reply = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert reply.returncode == 0, reply.stderr


def test_a_missing_backend_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmkit.backend import require_mlx

    require_mlx()
    monkeypatch.setitem(sys.modules, "mlx.core", None)  # what a failed import looks like
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(vlmkit.errors.VlmkitError, match=r"pip install 'vlmkit\[cpu\]' \(or 'vlm"):
        require_mlx()


def test_packaging() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) >= {"cpu", "cuda", "parity", "plot", "dev"}
    assert not any("matplotlib" in item for item in project["dependencies"])
    assert not any("torch" in item for item in project["dependencies"])
    command, target = next(iter(project["scripts"].items()))
    assert (command, target) == ("vlmkit", "vlmkit.cli.main:main")
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {vlmkit.__version__}" in changes


def test_what_the_quick_tests_leave_out_is_there() -> None:
    for name in WHOLE:
        file, _, function = name.partition("::")
        path = ROOT / "tests" / file
        assert path.exists(), name
        assert path.is_dir() or f"def {function}" in path.read_text(), name


def test_the_quick_tests_look_at_every_package() -> None:
    for package in sorted(path.name for path in PACKAGE.iterdir() if path.is_dir()):
        files = [
            path.relative_to(ROOT / "tests")
            for path in (ROOT / "tests" / package).rglob("test_*.py")
        ]
        left = [file for file in files if not str(file).startswith(WHOLE_FILES)]
        assert left or not files, package


def test_files_and_functions_stay_readable() -> None:
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        text = path.read_text()
        assert len(text.splitlines()) <= 300, f"{path}: split it by purpose"
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
                assert length <= 60, f"{path}: {node.name} has {length} lines; split it"
