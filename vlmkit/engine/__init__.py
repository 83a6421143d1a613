"""The engine: requests and pipelines become rows, and rows the steps of one decode loop.

The words it uses, each for one thing:

- A **row** is what the loop carries on by a token per step (`RowSpec`: what was asked; `RowState`:
  how far it is). Everything of a batch is aligned by row and moves by one select and one join.
- A **stream** is one prompt in the decode states: a row's own, or one that its logits are
  contrasted with. A batch of B rows contrasted with S others has ``B · (1 + S)`` of them.
- A **section** is the neighbouring rows of a batch that share a sampler chain.
- A **path** is a row of a search, with the trail of the steps that led to it. The paths of one
  search have the number of their request; the search decides which goes on, and with what.
- A **lane** is nothing of its own here: rows of other caches, prefills or contrasts run in a
  batch of their own, one after the other.

What is known before anything is generated is in `vlmkit.resolve`; its names that a caller needs
are here too.
"""

from vlmkit.engine.collect import collect, collect_rows, to_result
from vlmkit.engine.rows import RowSpec, Step
from vlmkit.engine.run import (
    RunOptions,
    build_spec,
    run_request,
    run_requests,
    run_specs,
)
from vlmkit.resolve.checking import Work, check_requests, check_searches
from vlmkit.resolve.method import Amateur, Method, build_method, find_amateur
from vlmkit.resolve.request import Request, load_images, prepare_inputs
from vlmkit.resolve.search_plan import check_search_plan, plan_search
from vlmkit.resolve.stages import Resolved, resolve
from vlmkit.resolve.starting import prompt_store, start_request

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
