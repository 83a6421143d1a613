"""Contrast methods in a batch: blind to other rows."""

from __future__ import annotations

import shutil

import mlx.core as mx
import pytest

from tests.engine.contrasted import (
    ASSETS,
    METHODS,
    SAMPLING,
    generate,
    pipeline_of,
    question,
)
from vlmkit.batch import batch_pipeline


@pytest.fixture(scope="module")
def rows_alone(shapes, amateur):
    """Rows of every method, and what each gives by itself."""
    asked = [("describe.png", "Describe this image."), ("count_all.png", "Count the objects.")]
    methods = [None, *METHODS.values(), None, *reversed(METHODS.values())]
    rows = []
    for index, method in enumerate(methods):
        request = question(shapes[1], *asked[index % 2], sample=index)
        more = {"sampling": SAMPLING if index % 3 else [], "seed": index}
        max_tokens = 8 + 3 * (index % 5)
        rows.append((request, pipeline_of(method, amateur, max_tokens=max_tokens, **more)))
    return rows, [generate(shapes, *row) for row in rows]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_rows_with_other_methods_do_not_matter(shapes, rows_alone, batch_size):
    rows, results = rows_alone
    together = batch_pipeline(*shapes, rows, batch_size=batch_size).results
    for (_, pipeline), found, alone in zip(rows, together, results, strict=True):
        assert found.token_ids == alone.token_ids, pipeline.contrast
        assert found.finish_reason == alone.finish_reason


def test_a_batch_may_have_several_amateurs(shapes, amateur, tmp_path):
    shutil.copytree(amateur, tmp_path, dirs_exist_ok=True)
    weights = mx.load(str(tmp_path / "model.safetensors"))
    changed = {name: weight * 0.7 if "mlp" in name else weight for name, weight in weights.items()}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), changed, {"format": "mlx"})
    method = METHODS["contrastive decoding"]
    rows = [
        (
            question(shapes[1], "describe.png", "Describe this image.", sample=sample),
            pipeline_of(method, folder, sampling=SAMPLING, max_tokens=6 + sample),
        )
        for sample, folder in enumerate([amateur, tmp_path, ASSETS, tmp_path])
    ]
    found = batch_pipeline(*shapes, rows, batch_size=3).results
    alone = [generate(shapes, *row) for row in rows]
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]
