"""Ablation runs: one YAML in, a comparison out."""
