"""Compiling the mesh configuration in a process of its own, so that polls and heartbeats do not wait for it."""
