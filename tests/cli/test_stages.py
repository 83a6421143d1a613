"""``vlmkit stages``: the list is complete, and what is said of a stage is true of it."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.reply import Command
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.config.catalogue import GROUPS, Kind, all_kinds, find_stages, sections
from vlmkit.config.explain import explain, find_factory
from vlmkit.config.parameters import show_type
from vlmkit.config.run import RunConfig
from vlmkit.config.schema import run_schema
from vlmkit.engine import Request
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template

STAGES = ["preprocess", "prefill", "cache", "contrast", "sampling", "search", "stopping"]
KINDS = [pytest.param(kind, id=f"{kind.section}.{kind.name}") for kind in all_kinds()]
MODULE = "tests.external_package.vlmkit_example_stages"


def kinds_in(part: Any) -> list[str]:
    """The kinds that a part of the schema tells apart."""
    options = part.get("anyOf", [part.get("items", part)])
    return [kind for each in options for kind in each.get("discriminator", {}).get("mapping", {})]


def test_the_list_has_a_line_for_every_kind(command: Command) -> None:
    reply = command("stages")
    assert (reply.code, reply.stderr) == (0, "")
    lines = reply.stdout.splitlines()
    properties = run_schema()["properties"]
    assert [line.partition(":")[0] for line in lines if line[:1].strip()] == STAGES
    for stage in STAGES:
        listed = command("stages", stage).stdout.splitlines() if kinds_in(properties[stage]) else []
        named = [line.split()[0] for line in listed if line.startswith("    ")]
        assert sorted(named) == sorted(kinds_in(properties[stage]))
        assert set(listed) <= set(lines)
        for line in listed[1:]:
            assert not line.startswith("    ") or len(line.split()) > 3, (
                "every kind says what it is"
            )


def test_every_kind_is_in_one_group() -> None:
    for section, groups in GROUPS.items():
        grouped = sorted(name for names in groups.values() for name in names)
        assert grouped == sorted(kind.name for kind in all_kinds() if kind.section == section)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_is_explained(command: Command, kind: Kind) -> None:
    reply = command("stages", f"{kind.section}.{kind.name}")
    assert (reply.code, reply.stderr) == (0, "")
    explanation = explain(kind)
    fields = {name: field for name, field in kind.config.model_fields.items() if name != "kind"}
    names = [parameter.name for parameter in explanation.parameters if "." not in parameter.name]
    assert names == list(fields)
    for parameter in explanation.parameters:
        assert parameter.type
        assert parameter.description
        assert f"\n  {parameter.name}: {parameter.type}; " in reply.stdout
        if parameter.name in fields:
            assert fields[parameter.name].is_required() == (parameter.default is None)
    assert (find_factory(kind) is not None) == (kind.name != kind.section)
    assert bool(explanation.paragraphs) == (kind.name != kind.section)
    assert set(explanation.related) <= {other.name for other in all_kinds()} - {kind.name}
    assert explanation.example_name in reply.stdout
    assert "`" not in reply.stdout.partition("\nexample")[0], "no mark-up is left"
    assert reply.stdout.rstrip().endswith(".py")


@functools.cache
def load_shapes() -> tuple[Any, Any]:
    return load("shapes")


def run(document: dict[str, Any]) -> list[str]:
    """The first texts that a config makes of a question about a picture."""
    document.setdefault("stopping", [{"kind": "max_tokens", "max_tokens": 4}])
    config = RunConfig(**document)
    model, processor = load_shapes()
    prompt = apply_chat_template(
        processor, model.config, "Count the objects.", num_images=1,
        enable_thinking=config.template.enable_thinking,
    )  # fmt: skip
    request = Request(prompt, ("vlmkit:shapes/samples/count_all.png",))
    results = stream_pipeline(model, processor, request, config.pipeline)
    return [result.text for result in itertools.islice(results, 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_shows_the_kind_and_runs(kind: Kind) -> None:
    document = yaml.safe_load(explain(kind).example)
    if kind.name != kind.section:
        assert f"kind: {kind.name}" in explain(kind).example
    assert kind.section in document
    assert run(document)


def test_one_in_full(command: Command) -> None:
    shown = command("stages", "top_p").stdout
    assert shown.startswith("top_p (sampling)\n  Keep the smallest set of most likely tokens that ")
    for part in (
        "\n  Keep token i while the mass ranked above it is below P.\n",
        "\nparameters\n  p: number > 0, ≤ 1; required\n      share of the probability mass; 1 is ",
        "\n  ties: exact or all; default exact\n",
        "\nexample: vlmkit:sampling/nucleus.yaml\n",
        "\n  sampling:\n    - kind: top_p\n      p: 0.9\n",
        "\n  vlmkit generate vlmkit:sampling/nucleus.yaml --prompt ",
        "\nrelated\n  top_k, min_p, typical_p, ",
        "ICLR 2020, arXiv:1904.09751.\n  vlmkit/sampling/top_p.py\n",
    ):
        assert part in shown


def test_a_name_of_two_stages_shows_both(command: Command) -> None:
    shown = command("stages", "external").stdout
    assert "external (sampling)\n" in shown
    assert "\n\nexternal (stopping)\n" in shown
    assert "external (contrast)\n" in shown
    assert "\n\nexternal (search)\n" in shown
    assert "(stopping)" not in command("stages", "sampling.external").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["top_pp"], "unknown stage 'top_pp'; did you mean 'top_p'? (`vlmkit stages` lists all)"),
        (["samplin"], "unknown stage 'samplin'; did you mean 'sampling'?"),
        (["stopping.top_p"], "unknown stage 'stopping.top_p'"),
        (["zzz"], "unknown stage 'zzz' (`vlmkit stages` lists all)"),
        ([""], "unknown stage ''"),
        (["top_p", "min_p"], "unexpected argument 'min_p'"),
        (["top_p", "--names"], "--names lists all names: leave out 'top_p'"),
        (["--json"], "--json is an option of "),
    ],
)
def test_mistakes(command: Command, words: list[str], message: str) -> None:
    reply = command("stages", *words)
    assert (reply.code, reply.stdout, reply.stderr.count("\n")) == (2, "", 1)
    assert reply.stderr.startswith("vlmkit: error: ")
    assert message in reply.stderr


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install entry points of each group; the module of one says that it was imported."""
    info = tmp_path / "own_stages-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-stages\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(
        f"[vlmkit.sampling]\nfading_penalty = {MODULE}.fading_penalty:fading_penalty\n"
        "loud = loud_stage:loud\nbroken = no_such_module:stage\nnumber = loud_stage:NUMBER\n"
        f"[vlmkit.stopping]\nmax_lines = {MODULE}.max_lines:max_lines\n"
        f"[vlmkit.cache]\nsunk_window = {MODULE}.sunk_window:sunk_window\n"
        f"[vlmkit.contrast]\nhalf_prompt = {MODULE}.half_prompt:half_prompt\n"
        f"[vlmkit.search]\nlikeliest_path = {MODULE}.likeliest_path:likeliest_path\n"
    )
    (tmp_path / "loud_stage.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('imported').touch()\nNUMBER = 3\n"
        'def loud(a, *, b=2):\n    """Be loud.\n\n    Args:\n        a: how loud.\n    """\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "loud_stage", raising=False)
    return tmp_path


def test_installed_stages_are_listed_without_an_import(command: Command, install: Path) -> None:
    lines = command("stages").stdout.splitlines()
    (line,) = [line for line in lines if line.split()[:1] == ["loud"]]
    assert line.split(maxsplit=1)[1] == "loud_stage:loud of own-stages 1.5"
    assert lines.index(line) > lines.index(next(each for each in lines if "  external " in each))
    for words in (["sampling"], ["top_p"], ["--names"], ["external"], ["fading_penalty"]):
        assert command("stages", *words).code == 0
    assert {"loud", "max_lines", "top_p"} <= set(command("stages", "--names").stdout.split("\n"))
    assert not (install / "imported").exists()
    shown = command("stages", "loud").stdout
    assert "\n  a: required\n      how loud.\n  b: default 2\n" in shown
    assert (install / "imported").exists()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fading_penalty", "  strength: float; required\n  decay: float; default 0.5\n"),
        ("max_lines", '  num_lines: int; required\n  newline: str; default "\\n"\n'),
        ("sunk_window", "  first: int; default 4\n  last: int; required\n"),
        ("half_prompt", "  weight: float; required\n"),
        ("likeliest_path", "  scale: float; default 1\n"),
    ],
)
def test_an_installed_stage_is_explained_and_its_example_runs(
    command: Command, install: Path, name: str, parameters: str
) -> None:
    assert f"\nparameters\n{parameters}\n" in command("stages", name).stdout
    (stage,) = find_stages(name)
    assert run(yaml.safe_load(explain(stage).example))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "broken",
            "sampling: factory 'broken' (no_such_module:stage of own-stages 1.5) can't be im",
        ),
        (
            "number",
            "sampling: factory 'number' (loud_stage:NUMBER of own-stages 1.5) is of type int",
        ),
        ("lou", "unknown stage 'lou'; did you mean 'loud'?"),
    ],
)
def test_installed_stages_that_cannot_be_explained(
    command: Command, install: Path, name: str, message: str
) -> None:
    reply = command("stages", name)
    assert (reply.code, reply.stdout, reply.stderr.count("\n")) == (2, "", 1)
    assert message in reply.stderr


def test_sections_are_those_of_the_pipeline() -> None:
    assert (
        list(sections())
        == STAGES
        == [name for name in PipelineConfig.model_fields if name in STAGES]
    )


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 1}, "whole number ≥ 1"),
        ({"anyOf": [{"type": "number", "minimum": 0.5}, {"type": "null"}]}, "number ≥ 0.5 or null"),
        ({"enum": ["low", "high"]}, "low or high"),
        ({"type": "array", "items": {"const": "a"}, "minItems": 2}, "list of a (at least 2)"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "mapping to numbers"),
        ({}, "any value"),
    ],
)  # fmt: skip
def test_types_and_ranges_in_words(schema: dict[str, Any], text: str) -> None:
    assert show_type(schema, {}) == text
