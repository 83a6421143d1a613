"""vlmkit and the harnesses of others. Only the command line imports this, when it exports."""
