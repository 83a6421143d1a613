"""Configs: YAML and parameters in, validated frozen configs out."""
