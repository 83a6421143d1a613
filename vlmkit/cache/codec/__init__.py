"""Codecs of keys and values, one per file."""
