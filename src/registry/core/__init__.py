"""The pure rules of the registry: they do no I/O, and the time is an argument."""
