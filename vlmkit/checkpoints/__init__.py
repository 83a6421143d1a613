"""What checkpoint files have in common."""
