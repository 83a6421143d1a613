"""Token ids, sequences of them, and the texts they stand for."""
