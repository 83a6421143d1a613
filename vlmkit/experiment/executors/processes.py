"""Workers as processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from vlmkit.errors import VlmkitError
from vlmkit.experiment.executors.fleet import Fleet, Start
from vlmkit.experiment.reading import WORKERS
from vlmkit.files import append_file

_TAIL_BYTES = 4096


def processes(start: Start) -> Callable[[], Fleet]:
    """Return what starts ``vlmkit worker`` some times; what they print goes to files.

    Raises:
        VlmkitError: resources, which processes of one machine do not have.
    """
    if start.resources:
        name = next(iter(start.resources))
        raise VlmkitError(
            f"--resource {name}: processes of this machine share all of it; leave it out, or "
            "choose --executor slurm or ray"
        )
    return lambda: _begin(start)


def _begin(start: Start) -> Fleet:
    logs = start.folder / WORKERS
    logs.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "vlmkit", "worker", str(start.folder), *_flags(start)]
    started: list[tuple[subprocess.Popen[bytes], Path]] = []
    for number in range(start.num_workers):
        path = logs / f"process-{number}.log"
        path.unlink(missing_ok=True)
        with os.fdopen(append_file(path), "wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it through us alone
            )
        started.append((process, path))

    def send(number: int) -> None:
        for process, _ in started:
            if process.poll() is None:
                process.send_signal(number)

    def kill() -> None:
        send(signal.SIGKILL)
        for process, _ in started:
            process.wait()

    return Fleet(
        num_alive=lambda: sum(process.poll() is None for process, _ in started),
        stop=lambda: send(signal.SIGINT),
        kill=kill,
        problems=lambda: [text for one in started for text in _problem(*one)],
    )


def _flags(start: Start) -> Iterator[str]:
    options = start.options
    yield from ("--lease", repr(options["lease_s"]))
    if options["batch_size"] is not None:
        yield from ("--batch-size", str(options["batch_size"]))
    if not options["share"]:
        yield "--no-sharing"
    for name in ("fail_fast", "trust_code"):
        if options[name]:
            yield "--" + name.replace("_", "-")


def _problem(process: subprocess.Popen[bytes], log: Path) -> Iterator[str]:
    code = process.poll()
    if code in (None, 0, 128 + signal.SIGINT):
        return
    if code is not None and code < 0:
        yield f"pid {process.pid} was ended by {signal.Signals(-code).name}"
        return
    lines = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
    yield lines[-1].removeprefix("vlmkit: error: ") if lines else f"exit code {code}"
