"""The JSON Schema of an experiment file, for editors that complete and check YAML."""

from __future__ import annotations

import copy
import json
from typing import Any

from vlmkit.config.yaml_tree import INCLUDE
from vlmkit.experiment.config import ExperimentConfig
from vlmkit.mistakes.jsonschema import json_schema


def experiment_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of an experiment file.

    Example:
        >>> sorted(experiment_schema()["properties"])[:3]
        ['arms', 'base', 'baseline']
    """
    schema = copy.deepcopy(json_schema(ExperimentConfig))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "vlmkit experiment"
    schema["description"] = "An experiment: arms, a data set, seeds and metrics."
    schema.pop("required", None)  # a file that is included may leave out anything
    path = {"type": "string"}
    schema["properties"][INCLUDE] = {
        "description": "experiment files to start from, relative to this one; later ones win",
        "anyOf": [path, {"type": "array", "items": path}],
    }
    return schema


def experiment_schema_text() -> str:
    """The schema as it is written to ``configs/experiment.schema.json``."""
    return json.dumps(experiment_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
