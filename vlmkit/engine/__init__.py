"""The engine: rows, the decode loop, and how a pipeline config becomes both."""

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
    "effective_config",
    "prepare_inputs",
    "run_rows",
]
