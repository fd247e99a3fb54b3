"""Operator's command ``registryctl``, which uses the system from outside, over HTTP, as any other client does."""
