"""Arguments, and which of them count as given."""

from __future__ import annotations

import pytest

from vlmkit.cli.parser import PARAM_FLAGS, build_parser, given_flags, parse
from vlmkit.config.flags import CACHE_FLAGS, RUN_FIELDS, STAGE_FIELDS
from vlmkit.config.params import GenerationParams
from vlmkit.errors import VlmkitError


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


def test_every_flag_has_a_place_in_the_config() -> None:
    names = {flag.name for flag in PARAM_FLAGS}
    assert names <= set(GenerationParams.model_fields)
    assert names <= {*RUN_FIELDS, *STAGE_FIELDS, *CACHE_FLAGS}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["generate", "--temprature", "1"], "unknown option --temprature; did you mean '--temper"),
        (["generate", "--temp", "1"], "unknown option --temp"),
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
