"""What the configs refuse, and the errors of building."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from vlmkit.contrast import ContrastConfig, DolaConfig, build_contrast
from vlmkit.contrast.icd import DISTURBANCE
from vlmkit.errors import VlmkitError

ADAPTER: TypeAdapter[Any] = TypeAdapter(ContrastConfig)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "cfg", "scale": -0.1}, "greater than or equal to 0"),
        ({"kind": "cfg", "scale": True}, "needs a number"),
        ({"kind": "cfg", "gamma": 2.0}, "Extra inputs"),
        ({"kind": "cfg", "negative_images": True}, "nothing to contrast"),
        ({"kind": "contrastive_decoding"}, "Field required"),
        ({"kind": "contrastive_decoding", "amateur": ""}, "at least 1 character"),
        ({"kind": "contrastive_decoding", "amateur": "a", "alpha": 0.0}, "greater than 0"),
        ({"kind": "contrastive_decoding", "amateur": "a", "amateur_temperature": 0}, "than 0"),
        ({"kind": "dola", "layers": "middle"}, "'low' or 'high'"),
        ({"kind": "dola", "layers": []}, "distinct layers"),
        ({"kind": "dola", "layers": [2, 2]}, "distinct layers"),
        ({"kind": "dola", "layers": [-1]}, "distinct layers"),
        ({"kind": "dola", "relative_top": 1.1}, "less than or equal to 1"),
        ({"kind": "vcd", "noise_step": 1000}, "less than 1000"),
        ({"kind": "vcd", "beta": float("nan")}, "finite"),
        ({"kind": "icd", "disturbance": ""}, "at least 1 character"),
        ({"kind": "m3id", "confidence": 0.0}, "greater than 0"),
        ({"kind": "pai"}, "does not match any of the expected tags"),
    ],
)
def test_what_is_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        ADAPTER.validate_python(wrong)


def test_defaults_are_those_of_the_papers():
    def values(kind: str, **given: Any) -> dict[str, Any]:
        return ADAPTER.validate_python({"kind": kind, **given}).model_dump(exclude={"kind"})

    assert values("vcd") == {"alpha": 1.0, "beta": 0.1, "noise_step": 500}
    assert values("icd") == {"alpha": 1.0, "beta": 0.1, "disturbance": DISTURBANCE}
    assert values("contrastive_decoding", amateur="x") == {
        "amateur": "x",
        "alpha": 0.1,
        "beta": None,
        "amateur_temperature": 1.0,
    }
    assert values("dola")["relative_top"] == 0.1


def test_yaml_lists_are_layers():
    config = ADAPTER.validate_python({"kind": "dola", "layers": [0, 4]})
    assert build_contrast(config, num_layers=6, tied_embeddings=True).early_layers == (0, 4)


def test_layers_that_the_model_does_not_have():
    with pytest.raises(VlmkitError, match="layers has 6, but the model's layers are 0 to 5"):
        build_contrast(DolaConfig(layers=(2, 6)), num_layers=6, tied_embeddings=False)
