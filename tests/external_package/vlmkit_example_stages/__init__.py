"""Stages for vlmkit from outside."""
