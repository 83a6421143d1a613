"""Workers that share a run directory."""
