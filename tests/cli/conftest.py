"""The command line as a script sees it."""

from __future__ import annotations

import pytest

from tests.cli.reply import ROOT, Command, Reply
from vlmkit.cli.main import main


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in the project's folder, with a terminal of unknown width."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*argv: str) -> Reply:
        code = main(argv)
        return Reply(code, *capsys.readouterr())

    return run
