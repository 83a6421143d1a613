"""What a value that does not fit is called, for configs from YAML and from Python alike."""
