"""Calls on hostile input, each in a process of its own with little memory and little time.

One helper process imports what the calls need once and forks for each of them, so that a case
costs milliseconds and a crash, an endless loop or a full memory ends that case alone. What cannot
be forked, as a model that has computed, runs as code: all cases in one fork.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from vlmkit.errors import VlmkitError
from vlmkit.printable import MAX_MESSAGE, printable

MAX_BYTES = 2 * 2**30  # of memory, beyond what the imports take
MAX_S = 10.0
_ROOT = Path(__file__).parents[2]


class Call(NamedTuple):
    """What a case calls; arguments and exceptions travel as pickles."""

    function: str  # "package.module:function"
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})


class Outcome(NamedTuple):
    """What came of a call."""

    kind: str  # "result", "error" (VlmkitError), "exit", "raised", "killed" or "timeout"
    text: str  # the error's text or the traceback; of a command its stderr
    stdout: str = ""
    seconds: float = 0.0

    def is_lawful(self) -> bool:
        """Whether it is a result, or one line of error."""
        line = self.text.removesuffix("\n")
        return self.kind == "result" or (self.kind in ("error", "exit") and is_one_line(line))


def is_one_line(text: str) -> bool:
    """Whether a text is one line that commands no terminal and is not too long."""
    shown = text.removeprefix("vlmkit: error: ")
    return 0 < len(shown) <= MAX_MESSAGE and "\n" not in text and printable(text) == text


def message_of(call: Callable[[], object]) -> str | None:
    """What a call says in a VlmkitError; None where it has a result. Nothing else may come."""
    try:
        call()
    except VlmkitError as error:
        return str(error)
    return None


def run_limited(
    calls: Sequence[Call],
    *,
    imports: Sequence[str] = (),
    max_bytes: int = MAX_BYTES,
    max_s: float = MAX_S,
) -> list[Outcome]:
    """Run every call by itself under limits, and return what came of each.

    Args:
        calls: in order; ``vlmkit.cli.main:main`` counts as a command, whose exit code 2 is an
            "exit".
        imports: modules that the helper imports first, so that no case pays for them.
        max_bytes: of address space, beyond what the imports take (on Linux).
        max_s: of wall-clock time.
    """
    job = pickle.dumps(
        ([(*call[:2], dict(call.kwargs)) for call in calls], list(imports), max_bytes, max_s)
    )
    with tempfile.TemporaryDirectory() as folder:  # for what a call writes by a relative name
        reply = subprocess.run(
            [sys.executable, "-m", "tests.hostile.limited"],
            input=job,
            capture_output=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            check=False,
        )
    assert reply.returncode == 0, reply.stderr.decode(errors="replace")
    return [Outcome(*found) for found in json.loads(reply.stdout)]


def run_code(setup: str, cases: Sequence[Any]) -> list[Any]:
    """Return what ``run(case)`` gives for each case, or the error's text; all in one process.

    Anything but a value of JSON or a VlmkitError of one line fails, as do a process that is ended
    by a signal, more than `MAX_BYTES` (also of processes that it starts), and more than `MAX_S` for
    each case.

    Args:
        setup: code that defines ``run``.
        cases: values of JSON.
    """
    call = Call("tests.hostile.limited:_run_each", (setup, list(cases)))
    (outcome,) = run_limited([call], max_s=MAX_S * (len(cases) + 1))
    assert outcome.kind == "result", outcome.text
    told: list[Any] = json.loads(outcome.stdout)
    return told


def _run_each(setup: str, cases: Sequence[Any]) -> None:
    warnings.simplefilter("error")
    names: dict[str, Any] = {}
    exec(setup, names)
    told = []
    for case in cases:
        try:
            told.append(names["run"](case))
        except VlmkitError as error:
            told.append(str(error))
            if not is_one_line(told[-1]):
                raise AssertionError(told[-1]) from error
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak * (1 if sys.platform == "darwin" else 1024) < MAX_BYTES
    print(json.dumps(told))


def _fork(call: Call, max_bytes: int, max_s: float) -> Outcome:
    reader, writer = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        _limit_memory(max_bytes)
        outcome = _perform(call)
        with os.fdopen(writer, "wb") as file:
            file.write(json.dumps(outcome).encode())
        os._exit(0)
    os.close(writer)
    content = bytearray()
    while (left := begun + max_s - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        if not (block := os.read(reader, 1 << 16)):
            break
        content += block
    os.close(reader)
    is_late = time.monotonic() - begun >= max_s
    os.killpg(child, signal.SIGKILL) if is_late else None
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - begun
    if is_late:
        return Outcome("timeout", f"{call.function}: not done after {max_s} s", "", seconds)
    if status != 0 or not content:
        return Outcome("killed", f"wait status {status}", "", seconds)
    return Outcome(*json.loads(content))._replace(seconds=seconds)


def _limit_memory(max_bytes: int) -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return  # not on this system
    limit = pages * resource.getpagesize() + max_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _perform(call: Call) -> Outcome:
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        module, name = call.function.split(":")
        function = getattr(importlib.import_module(module), name)
        result = function(*call.args, **call.kwargs)
    except VlmkitError as error:
        return Outcome("error", str(error))
    except BaseException:
        return Outcome("raised", traceback.format_exc()[-2000:])
    stdout, stderr = sys.stdout.getvalue()[-100_000:], sys.stderr.getvalue()[-100_000:]
    is_refused = call.function == "vlmkit.cli.main:main" and result == 2
    return Outcome("exit" if is_refused else "result", stderr, stdout)


def _serve() -> None:
    calls, imports, max_bytes, max_s = pickle.load(sys.stdin.buffer)
    for module in ("vlmkit.errors", *imports):
        importlib.import_module(module)
    outcomes = [_fork(Call(*call), max_bytes, max_s) for call in calls]
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    _serve()
