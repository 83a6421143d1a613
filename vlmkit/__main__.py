"""``python -m vlmkit`` is the ``vlmkit`` command.

Python puts the current folder first among those that modules come from. It may hold what others
have written beside a config of theirs, so it is taken out again, unless code is trusted.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if sys.path[:1] == [os.getcwd()] and "--trust-code" not in sys.argv:
        del sys.path[0]  # before anything else is imported

    from vlmkit.cli.main import main

    sys.exit(main())
