"""The engine: rows, the decode loop, and how a pipeline config becomes both."""

from vlmkit.engine.checking import check_rows
from vlmkit.engine.collect import collect, collect_rows, to_result
from vlmkit.engine.contrasting import Amateur, find_amateur
from vlmkit.engine.request import Request, prepare_inputs
from vlmkit.engine.run import build_row, check_pipeline, effective_config, run_rows
from vlmkit.engine.search_plan import check_search_plan, plan_search

__all__ = [
    "Amateur",
    "Request",
    "build_row",
    "check_pipeline",
    "check_rows",
    "check_search_plan",
    "collect",
    "collect_rows",
    "effective_config",
    "find_amateur",
    "plan_search",
    "prepare_inputs",
    "run_rows",
    "to_result",
]
