"""A study of sampler chains that draw with the same mean entropy."""
