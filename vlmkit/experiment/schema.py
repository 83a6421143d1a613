"""The JSON Schemas of experiment and kv-eval files, for editors that complete and check YAML."""

from __future__ import annotations

import copy
import json
from typing import Any

from pydantic import BaseModel

from vlmkit.config.yaml_tree import INCLUDE
from vlmkit.experiment.config import ExperimentConfig
from vlmkit.experiment.kv_eval.config import KvEvalConfig
from vlmkit.mistakes.jsonschema import json_schema


def experiment_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of an experiment file.

    Example:
        >>> sorted(experiment_schema()["properties"])[:3]
        ['arms', 'base', 'baseline']
    """
    about = "An experiment: arms, a data set, seeds and metrics."
    return _file_schema(ExperimentConfig, "vlmkit experiment", about)


def kv_eval_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a kv-eval file.

    Example:
        >>> sorted(kv_eval_schema()["properties"])[:3]
        ['base', 'baseline', 'dataset']
    """
    about = "KV-cache policies that are compared with a baseline, a data set and metrics."
    return _file_schema(KvEvalConfig, "vlmkit kv-eval", about)


def _file_schema(config: type[BaseModel], title: str, description: str) -> dict[str, Any]:
    schema = copy.deepcopy(json_schema(config))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = title
    schema["description"] = description
    schema.pop("required", None)  # a file that is included may leave out anything
    path = {"type": "string"}
    schema["properties"][INCLUDE] = {
        "description": "files of the same kind to start from, relative to this one; later ones win",
        "anyOf": [path, {"type": "array", "items": path}],
    }
    return schema


def experiment_schema_text() -> str:
    """The schema as it is written to ``configs/experiment.schema.json``."""
    return _text(experiment_schema())


def kv_eval_schema_text() -> str:
    """The schema as it is written to ``configs/kv_eval.schema.json``."""
    return _text(kv_eval_schema())


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
