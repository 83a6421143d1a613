"""Benchmarks. Timings come with the command that makes them; nothing here asserts on a clock."""
