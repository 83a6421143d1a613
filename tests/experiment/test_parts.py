"""Data and scoring stand apart: no model, no mlx, every config described."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter

from vlmkit.experiment.data import DatasetConfig
from vlmkit.experiment.scoring import ScorerConfig


def test_data_and_scoring_load_neither_mlx_nor_packages_of_extras() -> None:
    script = (
        "import sys, pathlib\n"
        "import vlmkit.experiment.data as data, vlmkit.experiment.scoring as scoring\n"
        "samples = data.load_samples(data.ShapesConfig(num_samples=1), pathlib.Path())\n"
        "scoring.make_scorer(scoring.ExactConfig()).score(samples[0], 'x')\n"
        "heavy = {'mlx', 'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    reply = subprocess.run(command, capture_output=True, text=True, check=False)
    assert reply.returncode == 0, reply.stderr


@pytest.mark.parametrize("union", [DatasetConfig, ScorerConfig])
def test_every_key_says_what_it_is(union: Any) -> None:
    schema = TypeAdapter(union).json_schema()
    configs = [value for value in schema["$defs"].values() if "properties" in value]
    assert len(configs) == len(schema["discriminator"]["mapping"])
    for config in configs:
        assert config["description"]
        for key, value in config["properties"].items():
            assert key == "kind" or value.get("description"), (config["title"], key)
