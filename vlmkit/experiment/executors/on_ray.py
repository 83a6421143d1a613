"""Workers as tasks of a Ray cluster.

Reference: https://docs.ray.io/en/latest/ray-core/tasks.html, resources and retries of tasks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.experiment.executors.fleet import Fleet, Start, run_worker

ACCELERATOR = "accelerator"
"""The custom resource that a worker takes one of, unless others are named."""

_RETRIES = 3  # of a task whose process was killed; a worker goes on wherever others stopped
_OPTIONS = ("num_cpus", "num_gpus", "memory")


def ray_tasks(start: Start) -> Callable[[], Fleet]:
    """Return what runs workers as tasks, on the cluster at hand, else on this machine alone.

    ``start.resources`` are what each worker takes: ``num_cpus``, ``num_gpus``, ``memory`` or
    custom resources; one ``accelerator`` where none is named. ``address=HOST:PORT`` is the
    cluster's.

    Raises:
        VlmkitError: Ray is not installed, cannot be reached, or offers no such resource.
    """
    # A worker that takes an accelerator by another name than num_gpus still sees its GPU; and a
    # cluster that is started here tells nobody of it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise VlmkitError(
            f"--executor ray needs Ray ({error}): pip install 'vlmkit[ray]'"
        ) from None
    wanted = dict(start.resources)
    address = wanted.pop("address", None)
    options = {name: wanted.pop(name) for name in _OPTIONS if name in wanted}
    custom = wanted or ({} if options else {ACCELERATOR: 1})
    _connect(ray, address, {name: start.num_workers * amount for name, amount in custom.items()})
    _check_offered(ray, {**custom, **_in_rays_words(options)})
    task = ray.remote(run_worker).options(
        **{"num_cpus": 0, **options}, resources=custom, max_retries=_RETRIES, name="vlmkit worker"
    )
    return lambda: _begin(ray, task, start)


def _begin(ray: Any, task: Any, start: Start) -> Fleet:
    call = str(start.folder), start.options, os.getcwd()
    tasks = [task.remote(*call) for _ in range(start.num_workers)]

    def left() -> list[Any]:
        return list(ray.wait(tasks, num_returns=len(tasks), timeout=0)[1])

    def cancel(*, force: bool) -> None:
        for one in left():
            ray.cancel(one, force=force)

    return Fleet(
        num_alive=lambda: len(left()),
        stop=lambda: None,  # also those that do not run yet see the file that asks them to
        kill=lambda: cancel(force=True),
        problems=lambda: [text for one in tasks for text in _problem(ray, one)],
    )


def _connect(ray: Any, address: str | None, offered: dict[str, Any]) -> None:
    if ray.is_initialized():
        return
    try:
        try:
            ray.init(address=address or "auto", log_to_driver=False, logging_level="ERROR")
        except ConnectionError:
            if address is not None:
                raise
            ray.init(
                address="local",
                resources=offered,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise VlmkitError(f"--executor ray: no cluster at {address or 'hand'}: {text}") from error


def _in_rays_words(options: dict[str, Any]) -> dict[str, Any]:
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return {names[name]: amount for name, amount in options.items()}


def _check_offered(ray: Any, wanted: dict[str, Any]) -> None:
    """Refuse what no node has: Ray would wait for such a node for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, amount in wanted.items():
        if not any(node.get(name, 0) >= amount for node in nodes):
            raise VlmkitError(
                f"--resource {name}={amount}: no node of the Ray cluster has as much; start nodes "
                f"with it, as in: ray start --resources '{{\"{name}\": {amount}}}', or name "
                "another with --resource NAME=AMOUNT"
            )


def _problem(ray: Any, task: Any) -> list[str]:
    if ray.wait([task], timeout=0)[1]:
        return []
    try:
        ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return []
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        lines = str(cause).strip().splitlines()
        return [lines[0] if lines else repr(cause)]
    return []
