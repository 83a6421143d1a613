"""A file that names code runs none of it unless its reader says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vlmkit.cli.main import main
from vlmkit.config.run import load_run
from vlmkit.declare.external import External
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig, check_clock

MODULE = "vlmkit_touching_stage"
SOURCE = """\
from pathlib import Path
from vlmkit.contracts.stages import Decision, SamplerStage, StoppingCriterion

HERE = Path(__file__).parent
(HERE / "imported").touch()

def stage():
    (HERE / "called").touch()
    return SamplerStage("none", lambda p, n: (), lambda s, x, u: x, lambda s, i: s)

def stop():
    (HERE / "called").touch()
    return StoppingCriterion("none", lambda p: ((), Decision()), lambda s, e: ((), Decision()))

def leaves(code=0):
    raise SystemExit(code)

def ends_the_run():
    return SamplerStage("none", lambda p, n: (), lambda s, x, u: leaves(), lambda s, i: s)
"""
STAGE, STOP = f"{{kind: external, factory: '{MODULE}:stage'}}", f"{MODULE}:stop"
# file, overrides, where the factory stands
NAMED: dict[str, tuple[str, list[str], str]] = {
    "sampling": (f"sampling:\n- kind: greedy\n- {STAGE}\n", [], "run.yaml:3: sampling.1.factory"),
    "stopping": (
        f"stopping:\n- kind: external\n  factory: {STOP}\n",
        [],
        "run.yaml:3: stopping.0.factory",
    ),
    "contrast": (
        f"contrast:\n  kind: external\n  factory: {MODULE}:stage\n",
        [],
        "run.yaml:3: contrast.factory",
    ),
    "search": (
        f"seed: 1\nsearch: {{kind: external, factory: '{MODULE}:stage'}}\n",
        [],
        "run.yaml:2: search.factory",
    ),
    "group": (
        "stopping:\n- kind: any_of\n  criteria:\n  - kind: all_of\n    criteria:\n"
        f"    - {{kind: external, factory: '{STOP}'}}\n",
        [],
        "run.yaml:6: stopping.0.criteria.0.criteria.0.factory",
    ),
    "override": ("seed: 1\n", [f"sampling=[{STAGE}]"], "sampling.0.factory"),
    "override of a key": (
        "sampling: [{kind: external, factory: installed_name}]\n",
        [f"sampling.0.factory={MODULE}:stage"],
        f"sampling.0.factory={MODULE}:stage: sampling.0.factory",
    ),
    "included": ("include: part.yaml\n", [], "part.yaml:1: sampling.0.factory"),
    "a stage to be made first": (
        f"sampling: [{{kind: grammar, regex: '('}}]\n"
        f"stopping: [{{kind: external, factory: '{STOP}'}}]\n",
        [],
        "run.yaml:2: stopping.0.factory",
    ),
    "opting itself in": (
        f"trust_code: true\nsampling: [{STAGE}]\n",
        [],
        "run.yaml:1: trust_code: unknown key",
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the module path with a module that leaves traces."""
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    (tmp_path / "part.yaml").write_text(f"sampling: [{STAGE}]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    return tmp_path


def ran(folder: Path) -> list[str]:
    return [name for name in ("imported", "called") if (folder / name).exists()]


@pytest.mark.parametrize("case", NAMED)
def test_code_is_neither_imported_nor_called_without_trust(case: str, folder: Path) -> None:
    text, overrides, place = NAMED[case]
    (folder / "run.yaml").write_text(text)
    with pytest.raises(VlmkitError) as caught:
        load_run(folder / "run.yaml", overrides=overrides)
    message = str(caught.value)
    assert place in message
    assert "\n" not in message
    if case != "opting itself in":
        assert "add --trust-code (in Python: load_run(..., trust_code=True))" in message
    assert ran(folder) == []
    assert MODULE not in sys.modules


@pytest.mark.parametrize("command", ["describe", "generate", "trace"])
def test_commands_ask_for_trust(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run.yaml").write_text(f"prompt: Hi\nsampling: [{STAGE}, {{kind: greedy}}]\n")
    words = [command, str(folder / "run.yaml"), "--max-tokens", "1"]
    assert main(words) == 2
    reply = capsys.readouterr()
    assert reply.out == ""
    assert reply.err.startswith(f"vlmkit: error: {folder}/run.yaml:2: sampling.0.factory: ")
    assert reply.err.count("\n") == 1
    assert ran(folder) == []
    assert main([*words, "--trust-code"]) == 0
    assert ran(folder) == ["imported", "called"]


def test_schema_and_configs_of_ones_own_call_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", "--out", "-"]) == 0
    assert capsys.readouterr().out
    PipelineConfig(sampling=(External(factory=f"{MODULE}:stage"),))
    assert ran(folder) == []


def test_python_needs_no_trust_for_a_config_of_its_own(folder: Path) -> None:
    check_clock(PipelineConfig(stopping=(External(factory=STOP),)))
    assert ran(folder) == ["imported", "called"]


def test_trust_in_python(folder: Path) -> None:
    (folder / "run.yaml").write_text(f"sampling: [{STAGE}]\n")
    assert load_run(folder / "run.yaml", trust_code=True).config.sampling[0].kind == "external"
    values: list[Any] = ["no", 1, None]
    for value in values:
        with pytest.raises(VlmkitError, match="trust_code must be True or False, got"):
            load_run(trust_code=value)


LEAVING = {
    "the factory": (f"{MODULE}:leaves", "failed: SystemExit: 0"),
    "its module": ("vlmkit_leaving_stage:stage", "can't be imported: SystemExit: 0"),
    "a name of its module": ("vlmkit_lazy_stage:stage", "can't be read: SystemExit: 0"),
    "its stage": (f"{MODULE}:ends_the_run", "code of a stage ended the run: SystemExit: 0"),
}


@pytest.mark.parametrize("case", LEAVING)
def test_code_that_leaves_is_an_error(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factory, message = LEAVING[case]
    (folder / "vlmkit_leaving_stage.py").write_text("raise SystemExit(0)\n")
    (folder / "vlmkit_lazy_stage.py").write_text("def __getattr__(name): raise SystemExit(0)\n")
    entry = f"sampling=[{{kind: external, factory: '{factory}'}}, {{kind: greedy}}]"
    assert main(["generate", "--prompt", "Hi", entry, "--trust-code"]) == 2
    reply = capsys.readouterr()
    assert (reply.out, reply.err.count("\n")) == ("", 1)
    assert reply.err.startswith("vlmkit: error: ")
    assert message in reply.err


@pytest.mark.parametrize("side", ["keys", "values"])
@pytest.mark.parametrize("tokens", ["image", "text"])
def test_what_stands_in_modality_is_a_codec(tokens: str, side: str, tmp_path: Path) -> None:
    stage = "{kind: external, factory: 'datetime:timedelta'}"
    (tmp_path / "run.yaml").write_text(
        f"seed: 1\ncache: {{kind: modality, {tokens}: {{{side}: {stage}}}}}\n"
    )
    place = rf"run.yaml:2: cache\.{tokens}\.{side}"
    with pytest.raises(
        VlmkitError, match=rf"{place}.*returned a timedelta, not a vlmkit.cache.Codec"
    ):
        load_run(tmp_path / "run.yaml", trust_code=True)
