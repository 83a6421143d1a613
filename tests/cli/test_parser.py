"""Arguments, and which of them count as given."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmkit.cli.parser import PARAM_FLAGS, build_parser, given_flags, parse
from vlmkit.config.flags import CACHE_FLAGS
from vlmkit.config.params import GenerationParams
from vlmkit.errors import VlmkitError
from vlmkit.names.places import RUN_FIELDS, STAGE_FIELDS


def test_words_may_stand_anywhere() -> None:
    args = parse(
        build_parser(), ["generate", "a.yaml", "--seed", "3", "x.y=1", "--image", "p.png", "z=a=b"]
    )
    assert args.config == "a.yaml"
    assert args.overrides == ["x.y=1", "z=a=b"]
    assert given_flags(args) == {"seed": 3, "image": ["p.png"]}


def test_nothing_given_means_nothing_given() -> None:
    args = parse(build_parser(), ["generate"])
    assert given_flags(args) == {}
    assert (args.config, args.overrides) == (None, [])


def test_a_config_may_follow_a_repeatable_flag(tmp_path: Path) -> None:
    file = tmp_path / "no_ending"
    file.write_text("seed: 1")
    for config in ("run.yaml", str(file)):
        args = parse(build_parser(), ["generate", "--image", "a.png", config, "seed=2"])
        assert (args.config, args.image, args.overrides) == (config, ["a.png"], ["seed=2"])


def test_every_flag_has_a_place_in_the_config() -> None:
    names = {flag.name for flag in PARAM_FLAGS}
    assert names <= set(GenerationParams.model_fields)
    assert names <= {*RUN_FIELDS, *STAGE_FIELDS, *CACHE_FLAGS}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["generate", "--temprature", "1"], "unknown option --temprature; did you mean '--temper"),
        (["generate", "--temp", "1"], "unknown option --temp: use --temperature"),
        (["generate", "-p", "Hi"], "unknown option -p: use --prompt"),
        (["generate", "--search", "beam"], "write an override such as search.kind=…, or a config"),
        (["generate", "--sampling", "x"], "write an override such as sampling.0.kind=…, or a conf"),
        (["generate", "--image", "a.png", "b.png"], "--image takes one value: repeat it, as in --"),
        (["generate", "x.yaml", "--image=a.png", "b.png"], "--image takes one value: repeat it"),
        (["generate", "--stop", "a", "b"], "--stop takes one value: repeat it, as in --stop A"),
        (["generate", "x.yaml", "b.PNG"], "b.PNG is no config; give it as --image b.PNG"),
        (
            ["generate", "https://a/b.jpg?c=d", "--seed", "1"],
            "c=d is no config; give it as --imag",
        ),
        (["generate", "data:image/png;base64,AA=="], "is no config; give it as --image data:image"),
        (["generate", "a.wav"], "a.wav is no config; give it as --audio a.wav"),
        (["generate", "How many?"], "'How many?' is no config; a prompt is given as --prompt"),
        (["generate", "--picture", "x"], "--picture is an option of 'vlmkit trace', not of 'vlmki"),
        (["models", "--seed", "1"], "--seed is an option of 'vlmkit generate' and 'vlmkit trace'"),
        (["trace", "--pictur", "x"], "unknown option --pictur; did you mean '--picture'?"),
        (["--sede"], "unknown option --sede; did you mean '--seed'?"),
        (["generate", "a.yaml", "b.yaml"], "two configs given, 'a.yaml' and 'b.yaml'"),
        (["generate", "--seed", "x"], "invalid int value: 'x'"),
        (["generate", "--dtype", "float"], "invalid choice: 'float'"),
        (["generate", "--prompt"], "expected one argument"),
        (["genrate"], "invalid choice: 'genrate'"),
        (["models", "extra"], "unexpected argument 'extra'"),
    ],
)
def test_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        parse(build_parser(), argv)
    assert message in str(caught.value)
