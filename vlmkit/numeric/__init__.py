"""Arithmetic that several stages share."""
