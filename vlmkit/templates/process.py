"""One process for templates: started, asked within a time, and ended."""

from __future__ import annotations

import marshal
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.templates.limits import (
    MAX_MEMORY_BYTES,
    MAX_OUTPUT_CHARS,
    MAX_SECONDS,
    START_SECONDS,
)
from vlmkit.templates.worker import LENGTH_BYTES, READY, frame

# Nothing of the current folder, the user's site folder or PYTHON* variables is imported.
_START = "import sys; sys.path += sys.argv[1:]; from vlmkit.templates.worker import main; main()"
_PACKAGES = ("vlmkit", "jinja2", "markupsafe")
_MEASURE_SECONDS = 0.2  # between looks at the memory of a template that takes long
_MAX_REPLY_BYTES = 4 * MAX_OUTPUT_CHARS + 2**20


class HelperProcess:
    """A process that answers requests, one after the other.

    Example:
        >>> helper = HelperProcess()
        >>> helper.ask({"source": "Hi", "place": "-", "values": {"messages": []}}, "-")
        {'text': 'Hi', 'seen': ()}
        >>> helper.end()
    """

    def __init__(self) -> None:
        if not sys.executable:
            raise VlmkitError("chat template: there is no Python program to run it in")
        command = [sys.executable, "-I", "-S", "-c", _START, *_roots()]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._is_ready = False

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], place: str) -> dict[str, Any]:
        """Return the reply to a request.

        Args:
            request: see :func:`vlmkit.templates.worker.answer`.
            place: what errors call the template.

        Raises:
            VlmkitError: the process does not start, or the template takes too much time or memory;
                the process cannot be used after it.
        """
        if not self._is_ready:
            started = time.monotonic() + START_SECONDS
            if self._read(len(READY), started, place) != READY:
                raise self._ended(place)
            self._is_ready = True
        end = time.monotonic() + MAX_SECONDS
        pipe = self._process.stdin
        assert pipe is not None
        try:
            data = memoryview(frame(dict(request)))
            while data:
                data = data[pipe.write(data) :]
        except OSError as error:
            raise self._ended(place) from error
        size = int.from_bytes(self._read(LENGTH_BYTES, end, place))
        if size > _MAX_REPLY_BYTES:
            raise self._ended(place)
        reply: dict[str, Any] = marshal.loads(self._read(size, end, place))
        return reply

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._close()

    def forget(self) -> None:
        """Let go of a process that another process has started."""
        self._process.returncode = 0
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self, size: int, end: float, place: str) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        parts, missing = [], size
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while missing:
                left = end - time.monotonic()
                if left <= 0:
                    raise VlmkitError(
                        f"{place}: the chat template takes more than {MAX_SECONDS} seconds; pass"
                        " chat_template="
                    )
                if selector.select(min(left, _MEASURE_SECONDS)):
                    part = os.read(pipe.fileno(), missing)
                    if not part:
                        raise self._ended(place)
                    parts.append(part)
                    missing -= len(part)
                elif _memory_bytes(self._process.pid) > MAX_MEMORY_BYTES:
                    raise VlmkitError(
                        f"{place}: the chat template asks for more memory than its"
                        f" {MAX_MEMORY_BYTES >> 20} MiB"
                    )
        return b"".join(parts)

    def _ended(self, place: str) -> VlmkitError:
        if not self._is_ready:
            return VlmkitError(f"{place}: the process for chat templates does not start")
        return VlmkitError(f"{place}: the chat template ends the process that it runs in")


def _roots() -> list[str]:
    """The folders that the packages are imported from."""
    found: dict[str, None] = {}
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise VlmkitError(f"chat template: {name} is missing: pip install {name}")
        found[str(Path(spec.origin).resolve().parent.parent)] = None
    return list(found)


def _memory_bytes(pid: int) -> int:
    """The resident memory of a process; 0 where it cannot be told."""
    try:
        reply = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
    except OSError:
        return 0
    text = reply.stdout.strip()
    return int(text) * 1024 if text.isdecimal() else 0
