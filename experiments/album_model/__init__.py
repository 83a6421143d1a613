"""A small Qwen2-VL that finds one picture or note among many, begun from the weights of shapes."""
