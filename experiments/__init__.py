"""Experiments built on the public API of vlmkit."""
