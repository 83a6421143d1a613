"""Models as functions of their inputs: one decoder, one vision encoder, families as data."""
