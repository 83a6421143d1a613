"""What lets the harnesses of others drive vlmkit. Nothing else in vlmkit imports this."""
