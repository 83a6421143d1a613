"""What stages, models and caches ask of one another: values and signatures, no code of a family."""
