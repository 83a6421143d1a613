"""Every kind of KV cache on the same tokens: what each costs in quality, and what it saves."""
