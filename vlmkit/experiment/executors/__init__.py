"""Running an experiment by several processes or machines that share its run directory."""

from vlmkit.experiment.executors.launch import EXECUTORS, run_with
from vlmkit.experiment.executors.worker import work

__all__ = ["EXECUTORS", "run_with", "work"]
