"""The rules of `registryctl check`, by category: from what was seen to findings, without I/O."""
