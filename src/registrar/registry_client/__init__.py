"""Talking to the registries: their addresses, requests, and what their answers are logged as."""
