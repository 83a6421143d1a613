"""Errors of the model and of files get the place of the value that made them."""

from __future__ import annotations

import pytest

from vlmkit.config.document import parse_yaml
from vlmkit.config.locate import located
from vlmkit.config.tree import DEFAULT, KeyPath, merge, to_node
from vlmkit.errors import VlmkitError

WRITTEN = """
images: [a.png, "http://none/b.png"]
contrast: {kind: vcd}
stopping:
- kind: all_of
  criteria:
  - {kind: eos}
  - kind: thinking_budget
"""
DEFAULTS = {"model": "shapes", "cache": {"kind": "dense"}}


@pytest.mark.parametrize(
    ("message", "otherwise", "expected"),
    [
        ("image a.png: no such file", (), "run.yaml:2: images.0: image a.png: no such file"),
        ("http://none/b.png: no answer", (), "run.yaml:2: images.1: http://none/b.png: no answer"),
        ("vcd: needs an image", (), "run.yaml:3: contrast: vcd: needs an image"),
        ("contrast.alpha: too large", (), "run.yaml:3: contrast.alpha: too large"),
        (
            "thinking_budget: no marker",
            (),
            "run.yaml:8: stopping.0.criteria.1: thinking_budget: no marker",
        ),
        ("dense: what a default does", (), "dense: what a default does"),
        ("row 0: no token", (), "row 0: no token"),
        ("a folder is missing", ("model",), "a folder is missing"),
        ("a folder is missing", ("stopping",), "run.yaml:5: stopping: a folder is missing"),
    ],
)
def test_the_place_is_that_of_what_the_message_begins_with(
    message: str, otherwise: KeyPath, expected: str
) -> None:
    tree = merge(to_node(DEFAULTS, DEFAULT), parse_yaml(WRITTEN, "run.yaml"))
    with pytest.raises(VlmkitError) as caught, located(tree, otherwise):
        raise VlmkitError(message)
    assert str(caught.value) == expected
