"""Requests and pipelines on a model: what will run, refused here where it cannot.

A request becomes the model's inputs, a pipeline its stages, a contrast its models and prompts.
Nothing is generated; the engine's rows are made of what comes out.
"""

from vlmkit.resolve.checking import Work, check_requests, check_searches, named_row
from vlmkit.resolve.effective import describe_run, with_held
from vlmkit.resolve.method import Amateur, Method, build_method, other_prompts
from vlmkit.resolve.request import (
    Request,
    content_key,
    context_left,
    load_images,
    prepare_inputs,
)
from vlmkit.resolve.search_plan import check_search_plan, plan_search
from vlmkit.resolve.stages import Resolved, resolve
from vlmkit.resolve.starting import prefill_options, prompt_store, start_request

__all__ = [
    "Amateur",
    "Method",
    "Request",
    "Resolved",
    "Work",
    "build_method",
    "check_requests",
    "check_search_plan",
    "check_searches",
    "content_key",
    "context_left",
    "describe_run",
    "load_images",
    "named_row",
    "other_prompts",
    "plan_search",
    "prefill_options",
    "prepare_inputs",
    "prompt_store",
    "resolve",
    "start_request",
    "with_held",
]
