"""The engine: rows, the decode loop, and how a pipeline config becomes both."""

from vlmkit.engine.collect import collect, collect_rows, to_result
from vlmkit.engine.run import (
    Request,
    build_row,
    check_pipeline,
    effective_config,
    prepare_inputs,
    run_rows,
)

__all__ = [
    "Request",
    "build_row",
    "check_pipeline",
    "collect",
    "collect_rows",
    "effective_config",
    "prepare_inputs",
    "run_rows",
    "to_result",
]
