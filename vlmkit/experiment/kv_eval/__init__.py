"""How much a KV-cache policy changes a model: policies side by side on one policy's tokens."""
