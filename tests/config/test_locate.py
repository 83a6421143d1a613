"""Errors of the model and of files get the place of the value that made them."""

from __future__ import annotations

import pytest

from vlmkit.config.document import parse_yaml
from vlmkit.config.locate import located
from vlmkit.config.tree import DEFAULT, merge, to_node
from vlmkit.errors import KeyPath, VlmkitError

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
    ("message", "path", "otherwise", "expected"),
    [
        ("image a.png: not there", ("images", 0), (), "run.yaml:2: images.0: image a.png: not the"),
        ("no answer", ("images", 1), (), "run.yaml:2: images.1: no answer"),
        ("vcd: needs an image", ("contrast",), (), "run.yaml:3: contrast: vcd: needs an image"),
        ("contrast.alpha: too large", ("contrast", "alpha"), (), "run.yaml:3: contrast.alpha: too"),
        (
            "thinking_budget: no marker",
            ("stopping", 0, "criteria", 1, "start"),
            (),
            "run.yaml:8: stopping.0.criteria.1.start: thinking_budget: no marker",
        ),
        ("no such key", ("stopping", 7, "kind"), (), "run.yaml:5: stopping.7.kind: no such key"),
        ("dense: what a default does", ("cache",), (), "dense: what a default does"),
        ("vcd: of no key", (), (), "vcd: of no key"),
        ("row 0: no token", (), (), "row 0: no token"),
        ("a folder is missing", (), ("model",), "a folder is missing"),
        ("a folder is missing", (), ("stopping",), "run.yaml:5: stopping: a folder is missing"),
        ("it is cfg: odd", ("contrast",), ("model",), "run.yaml:3: contrast: it is cfg: odd"),
    ],
)
def test_the_place_is_that_of_the_errors_path(
    message: str, path: KeyPath, otherwise: KeyPath, expected: str
) -> None:
    tree = merge(to_node(DEFAULTS, DEFAULT), parse_yaml(WRITTEN, "run.yaml"))
    with pytest.raises(VlmkitError) as caught, located(tree, otherwise):
        raise VlmkitError(message, path=path)
    assert str(caught.value).startswith(expected)
    assert caught.value.path == (path or (otherwise if "run.yaml" in expected else ()))
