"""Fixtures shared by the tests of adapters."""

from tests.cli.conftest import command

__all__ = ["command"]
