"""What the table of families says is verified is what the tests verify."""

from __future__ import annotations

from tests.api import test_families as api
from tests.loading import test_gemma3, test_mlx_vlm_convert, test_qwen3_kin
from tests.models.tiny import CASES
from vlmkit.models.families import FAMILIES
from vlmkit.models.families.family import VERIFIED

QUANTIZED = {
    *test_mlx_vlm_convert.FAMILIES,
    "qwen3_5",
    *test_qwen3_kin.FAMILIES,
    *test_gemma3.FAMILIES,
}
HEARD = {"qwen2_audio"}  # tests/models/test_audio.py, tests/api/test_audio.py
TESTED = {
    "logits": {*CASES, "qwen2_audio", *test_gemma3.FAMILIES},
    "quantized": QUANTIZED,
    "batch": HEARD | set(api.FAMILIES),
    "contrast": HEARD | set(api.FAMILIES),
    "search": HEARD | set(api.FAMILIES),
}


def test_claims_are_tests() -> None:
    assert set(TESTED) == set(VERIFIED)
    assert {"vcd", "icd", "m3id", "dola", "beam", "contrastive search"} <= set(api.METHODS)
    for feature, families in TESTED.items():
        claimed = {family.name for family in FAMILIES if feature in family.verified}
        assert claimed == families, feature
