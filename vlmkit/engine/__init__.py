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

What is known before anything is generated is in `vlmkit.resolve`.
"""

from vlmkit.engine.collect import collect, collect_rows, to_result
from vlmkit.engine.loop import RunOptions
from vlmkit.engine.rows import RowSpec, Step
from vlmkit.engine.run import build_spec, run_request, run_requests, run_specs
from vlmkit.resolve.checking import check_requests
from vlmkit.resolve.method import Amateur
from vlmkit.resolve.request import Request, prepare_inputs

__all__ = [
    "Amateur",
    "Request",
    "RowSpec",
    "RunOptions",
    "Step",
    "build_spec",
    "check_requests",
    "collect",
    "collect_rows",
    "prepare_inputs",
    "run_request",
    "run_requests",
    "run_specs",
    "to_result",
]
