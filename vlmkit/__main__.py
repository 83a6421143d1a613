"""``python -m vlmkit`` is the ``vlmkit`` command."""

from __future__ import annotations

import sys

from vlmkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
