"""Chat templates are programs from outside: what they see, how they run, and how far they get."""
