"""Run code in a process with 2 GB and a time: what it takes beyond them ends it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MAX_BYTES = 2 * 10**9
SECONDS_EACH = 10
_FRAME = """
import json, resource, sys
cases = json.load(sys.stdin)
try: resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
except (ValueError, OSError): pass  # not on macOS
from vlmkit.errors import VlmkitError
{setup}
for case in cases:
    try: told = run(case)
    except VlmkitError as error: told = str(error); assert "\\n" not in told and len(told) < 1000
    print(json.dumps(told), flush=True)
me, others = (resource.getrusage(who).ru_maxrss for who in (0, resource.RUSAGE_CHILDREN))
try:  # on Linux the first of them counts the process that started this one, too
    with open("/proc/self/status") as status:
        me = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
except FileNotFoundError: pass
print(json.dumps((me + others) * (1 if sys.platform == "darwin" else 1024)))
"""


def run_limited(setup: str, cases: Sequence[Any]) -> list[Any]:
    """Return what ``run(case)`` gives for each case, or the error's text.

    Anything but a value of JSON or a VlmkitError of one line fails, as do a process that is ended
    by a signal, more than 2 GB, and more than 10 seconds for each case.

    Args:
        setup: code that defines ``run``.
        cases: values of JSON.
    """
    reply = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FRAME.format(setup=setup, limit=MAX_BYTES)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=SECONDS_EACH * (len(cases) + 1),
        cwd=ROOT,
        check=False,
    )
    lines = reply.stdout.splitlines()
    done = f"after {len(lines)} of {len(cases)} cases: {reply.stderr[-2000:]}"
    assert reply.returncode == 0, f"code {reply.returncode} {done}"
    *told, peak = map(json.loads, lines)
    assert peak < MAX_BYTES
    return told
