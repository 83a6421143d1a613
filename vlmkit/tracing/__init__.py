"""Traces: what each sampler stage did to each token's distribution, recorded and shown.

``measure`` makes a step's record from its logits, ``table`` and ``picture`` show it; the records
themselves need neither MLX nor matplotlib.
"""

from vlmkit.tracing.jsonl import open_trace, read_trace
from vlmkit.tracing.records import (
    Candidate,
    Removed,
    StageRecord,
    Trace,
    TraceEnd,
    TraceHeader,
    TraceStep,
    TrackedToken,
)
from vlmkit.tracing.summary import most_cut_step, removed_share, strictest_stage

__all__ = [
    "Candidate",
    "Removed",
    "StageRecord",
    "Trace",
    "TraceEnd",
    "TraceHeader",
    "TraceStep",
    "TrackedToken",
    "most_cut_step",
    "open_trace",
    "read_trace",
    "removed_share",
    "strictest_stage",
]
