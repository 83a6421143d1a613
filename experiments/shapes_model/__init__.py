"""A small Qwen2-VL trained from scratch on images this folder draws itself."""
