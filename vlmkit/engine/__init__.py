"""The engine: requests and pipelines become rows, and rows the steps of one decode loop."""

from vlmkit.engine.checking import check_searches
from vlmkit.engine.collect import collect, collect_rows, to_result
from vlmkit.engine.contrasting import Amateur, build_method, find_amateur
from vlmkit.engine.request import Request, load_images, prepare_inputs
from vlmkit.engine.resolve import Resolved, resolve
from vlmkit.engine.rows import RowSpec, Step
from vlmkit.engine.run import (
    RunOptions,
    Work,
    build_spec,
    check_requests,
    run_request,
    run_requests,
    run_specs,
)
from vlmkit.engine.search_plan import check_search_plan, plan_search
from vlmkit.engine.starting import prompt_store, start_request
from vlmkit.engine.streams import Method

__all__ = [
    "Amateur",
    "Method",
    "Request",
    "Resolved",
    "RowSpec",
    "RunOptions",
    "Step",
    "Work",
    "build_method",
    "build_spec",
    "check_requests",
    "check_search_plan",
    "check_searches",
    "collect",
    "collect_rows",
    "find_amateur",
    "load_images",
    "plan_search",
    "prepare_inputs",
    "prompt_store",
    "resolve",
    "run_request",
    "run_requests",
    "run_specs",
    "start_request",
    "to_result",
]
