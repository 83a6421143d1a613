"""The engine: requests and pipelines become rows, and rows the steps of one decode loop."""

from vlmkit.engine.checking import check_searches
from vlmkit.engine.collect import collect, collect_rows, to_result
from vlmkit.engine.contrasting import Amateur, find_amateur
from vlmkit.engine.request import Request, prepare_inputs
from vlmkit.engine.resolve import Resolved, resolve
from vlmkit.engine.rows import Step
from vlmkit.engine.run import RunOptions, Work, check_requests, run_request, run_requests
from vlmkit.engine.search_plan import check_search_plan, plan_search
from vlmkit.engine.starting import prompt_store, start_request

__all__ = [
    "Amateur",
    "Request",
    "Resolved",
    "RunOptions",
    "Step",
    "Work",
    "check_requests",
    "check_search_plan",
    "check_searches",
    "collect",
    "collect_rows",
    "find_amateur",
    "plan_search",
    "prepare_inputs",
    "prompt_store",
    "resolve",
    "run_request",
    "run_requests",
    "start_request",
    "to_result",
]
