"""The documents that the programs agree on, and the small parts that several of them need."""
