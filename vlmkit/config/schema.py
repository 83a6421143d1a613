"""The JSON Schema of a run file, for editors that complete and check YAML."""

from __future__ import annotations

import copy
import json
from typing import Any

from vlmkit.config.recommended import CHECKPOINT
from vlmkit.config.run import RunConfig
from vlmkit.config.yaml_tree import INCLUDE
from vlmkit.mistakes.jsonschema import json_schema


def run_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a file in ``configs/``.

    A fragment is a run with most keys left out, so nothing is required at the top, and one
    schema serves both.

    Example:
        >>> sorted(run_schema()["properties"])[:3]
        ['audio', 'backend', 'cache']
    """
    schema = copy.deepcopy(json_schema(RunConfig))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "vlmkit run"
    schema["description"] = "A run, or a fragment of one that runs include."
    path = {"type": "string"}
    schema["properties"][INCLUDE] = {
        "description": "files to start from, relative to this one, or vlmkit:PATH for one that "
        "comes with the package; later ones win",
        "anyOf": [path, {"type": "array", "items": path}],
    }
    # ``items`` is for a list and ``pattern`` for text, so both forms stand side by side.
    sampling = {"type": ["array", "string"], "pattern": f"^{CHECKPOINT}$"}
    schema["properties"]["sampling"] |= sampling
    return schema


def schema_text() -> str:
    """The schema as it is written to ``configs/schema.json``."""
    return json.dumps(run_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
