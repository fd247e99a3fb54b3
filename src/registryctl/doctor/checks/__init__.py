"""Rules of ``registryctl check``, by category: they make findings of evidence, without I/O."""
