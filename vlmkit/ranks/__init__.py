"""Several processes that compute one model together, as ``mlx.launch`` starts them."""
