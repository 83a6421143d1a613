"""Passes through a model: embed, prefill, decode step."""
