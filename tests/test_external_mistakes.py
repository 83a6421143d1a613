"""Every mistake with an external stage is one line that names its factory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from vlmkit.contracts.stages import Decision, SamplerStage, StoppingCriterion, TokenEvent
from vlmkit.declare.external import External
from vlmkit.errors import VlmkitError
from vlmkit.sampling import build_stage
from vlmkit.stopping import build_stopping

HERE = "tests.test_external_mistakes"
MODULE = "tests.external_package.vlmkit_example_stages"
PENALTY = f"{MODULE}.fading_penalty:fading_penalty"
LINES = f"{MODULE}.max_lines:max_lines"


def no_stage() -> dict[str, int]:
    return {}


def fails(**config: object) -> SamplerStage:
    raise ZeroDivisionError("this\nand that")


def make_stage(*, state: str = "none", result: str = "same", broken: str = "init") -> SamplerStage:
    """A stage that breaks one rule."""
    states = {
        "none": (),
        "number": (1.0,),
        "shared": {"heat": mx.zeros((7,))},
        "scalar": mx.array(1),
    }
    results: dict[str, Any] = {
        "same": lambda logits: logits,
        "half": lambda logits: logits.astype(mx.float16),
        "narrow": lambda logits: logits[:, 1:],
        "list": lambda logits: logits.tolist(),
    }
    return SamplerStage(
        "made",
        lambda prompts, size: states[state if broken == "init" else "none"],
        lambda part, logits, uniform: results[result](logits),
        lambda part, token_ids: states[state if broken == "update" else "none"],
        observe=lambda part, logits: states[state if broken == "observe" else "none"],
    )


def make_criterion(*, result: str = "nothing") -> StoppingCriterion:
    results: dict[str, Any] = {
        "nothing": None,
        "decision": Decision(),
        "pair": ((), True),
        "too large": ((), Decision(forced_id=9)),
        "below": ((), Decision(forced_id=-1)),
        "no id": ((), Decision(forced_id="a")),  # type: ignore[arg-type]
        "drawn": ((), Decision(overrides=((9, 1),))),
        "taken": ((), Decision(forced_id=1, overrides=((1, 9),))),
    }
    return StoppingCriterion(
        "made", lambda prompt: ((), Decision()), lambda state, event: results[result]
    )


NOT_A_FUNCTION = 3

MISTAKES: dict[str, tuple[str, dict[str, Any], str, type[Exception] | None]] = {
    "no entry point": (
        "gone",
        {},
        "no such entry point in the group 'vlmkit.sampling' (none is installed); "
        "or write package.module:function",
        None,
    ),
    "no module": (
        "no_such_module:stage",
        {},
        "can't be imported: ModuleNotFoundError: No module named 'no_such_module'; install its "
        "package, or run `python -m vlmkit` in the folder it lies in",
        ModuleNotFoundError,
    ),
    "no submodule": (
        "tests.no_such_module:stage",
        {},
        "can't be imported: ModuleNotFoundError: No module named 'tests.no_such_module'",
        ModuleNotFoundError,
    ),
    "no function": (
        f"{HERE}:make_stag",
        {},
        f"module '{HERE}' has no 'make_stag'; did you mean 'make_stage'?",
        AttributeError,
    ),
    "no function at all": (f"{HERE}:NOT_A_FUNCTION", {}, "is of type int, not a function", None),
    "unknown argument": (
        PENALTY,
        {"strenght": 1.0},
        "config: missing a required argument: 'strength'; did you mean 'strength'? "
        "(it takes: strength: 'float', decay: 'float' = 0.5)",
        TypeError,
    ),
    "missing argument": (PENALTY, {}, "config: missing a required argument: 'strength'", TypeError),
    "wrong value": (
        PENALTY,
        {"strength": 1.0, "decay": 2},
        "failed: ValueError: decay must be at least 0 and less than 1, got 2",
        ValueError,
    ),
    "an exception": (
        f"{HERE}:fails",
        {"a": 1},
        "failed: ZeroDivisionError: this and that",
        ZeroDivisionError,
    ),
    "no stage": (
        f"{HERE}:no_stage",
        {},
        "returned a dict, not a vlmkit.contracts.stages.SamplerStage",
        None,
    ),
    "the other kind": (
        LINES,
        {"num_lines": 1},
        "returned a StoppingCriterion, not a vlmkit.contracts.stages.SamplerStage",
        None,
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_that_names_the_factory(case: str) -> None:
    factory, arguments, message, cause = MISTAKES[case]
    with pytest.raises(VlmkitError) as caught:
        build_stage(External(factory=factory, config=arguments))
    text = str(caught.value)
    assert text.startswith(f"external: factory {factory!r}")
    assert message in text
    assert "\n" not in text
    assert type(caught.value.__cause__) is (cause or type(None))


def test_a_module_that_fails_while_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vlmkit_broken_stage.py").write_text("import no_such_dependency\n")
    (tmp_path / "vlmkit_wrong_stage.py").write_text("1 / 0\n")
    (tmp_path / "vlmkit_old_stage.py").write_text("import vlmkit\nvlmkit.gone_since\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(VlmkitError, match=r"No module named 'no_such_dependency'$"):
        build_stage(External(factory="vlmkit_broken_stage:stage"))
    with pytest.raises(VlmkitError, match="can't be imported: ZeroDivisionError: division by zero"):
        build_stage(External(factory="vlmkit_wrong_stage:stage"))
    with pytest.raises(VlmkitError, match=r"can't be imported: AttributeError: .*'gone_since'"):
        build_stage(External(factory="vlmkit_old_stage:stage"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"{HERE}:make_stage [fast]", ""),  # extras of the package that offers it
        (f"{HERE} : make_stage", ""),
        (f"{HERE}:make_stag", f"module '{HERE}' has no 'make_stag'; did you mean 'make_stage'?"),
        (f"{HERE}:make_stage.fast", f"module '{HERE}' has no 'make_stage.fast'"),
        (HERE, "is of type module, not a function"),
        ("no_such_module:stage", "can't be imported: ModuleNotFoundError: No module named"),
        ("not a target!", "can't be imported: "),
    ],
)
def test_entry_points_are_read_as_python_reads_them(
    target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_stages-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: some-stages\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[vlmkit.sampling]\nmine = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    if not message:
        assert build_stage(External(factory="mine")).name == "made"
        return
    with pytest.raises(VlmkitError) as caught:
        build_stage(External(factory="mine"))
    text = str(caught.value)
    assert text.startswith("external: factory 'mine'")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("factory", ["", " ", "a:", ":b", "a b:c", "a.:c", "a:b:c", "./a.py:b"])
def test_what_is_no_name_is_refused_by_the_config(factory: str) -> None:
    with pytest.raises(ValueError, match=r"must be 'package\.module:function' or an entry point"):
        External(factory=factory)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"state": "number"}, "state.0 is a float; every leaf needs one entry per row, [2, ...]"),
        ({"state": "shared"}, "state.heat is float32 [7]; every leaf needs one entry per row"),
        ({"state": "scalar"}, "the state is int32 []; every leaf needs one entry per row"),
        ({"state": "number", "broken": "update"}, "state.0 is a float; every leaf needs one"),
        ({"state": "number", "broken": "observe"}, "state.0 is a float; every leaf needs one"),
        ({"result": "half"}, "apply gave float16 [2, 5], not float32 [2, 5]"),
        ({"result": "narrow"}, "apply gave float32 [2, 4], not float32 [2, 5]"),
        ({"result": "list"}, "apply gave a list, not float32 [2, 5]"),
    ],
)
def test_a_stage_that_would_mix_rows_is_stopped(config: dict[str, Any], message: str) -> None:
    stage = build_stage(External(factory=f"{HERE}:make_stage", config=config))

    def step() -> None:
        state = stage.init([np.zeros(0, np.int32)] * 2, 5)
        logits = mx.zeros((2, 5))
        assert stage.observe is not None
        state = stage.observe(state, logits)
        stage.apply(state, logits, None)
        stage.update(state, mx.array([1, 2]))

    with pytest.raises(VlmkitError) as caught:
        step()
    assert f"stage 'made' of factory '{HERE}:make_stage': {message}" in str(caught.value)


@pytest.mark.parametrize("result", ["nothing", "decision", "pair"])
def test_a_criterion_that_decides_nothing_is_stopped(result: str) -> None:
    config = External(factory=f"{HERE}:make_criterion", config={"result": result})
    criterion = build_stopping([config], list, frozenset())
    state, _ = criterion.init([])
    with pytest.raises(VlmkitError, match=r"'made' .*: step must return \(state, Decision\), not"):
        criterion.step(state, TokenEvent(1, "a", 1))


@pytest.mark.parametrize(
    ("result", "shown"),
    [("too large", "9"), ("below", "-1"), ("no id", "'a'"), ("drawn", "9"), ("taken", "9")],
)
def test_a_criterion_that_wants_no_token_of_the_model_is_stopped(result: str, shown: str) -> None:
    config = External(factory=f"{HERE}:make_criterion", config={"result": result})
    criterion = build_stopping([config], list, frozenset(), num_ids=9)
    state, _ = criterion.init([])
    with pytest.raises(VlmkitError) as caught:
        criterion.step(state, TokenEvent(1, "a", 1))
    assert str(caught.value) == (
        f"external: criterion 'made' of factory '{HERE}:make_criterion': step decided on token "
        f"{shown}, but ids are whole numbers from 0 to 8"
    )
    assert caught.value.path == ("stopping", 0)


def test_a_factory_cannot_change_its_config() -> None:
    config = External(factory=f"{HERE}:appends", config={"values": [1]})
    build_stage(config)
    build_stage(config)
    assert config.config == {"values": [1]}


def appends(values: list[int]) -> SamplerStage:
    assert values == [1]
    values.append(2)
    return make_stage()
