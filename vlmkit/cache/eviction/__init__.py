"""Kinds of cache that drop tokens of a prompt once it is whole, one file each."""
