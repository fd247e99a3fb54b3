"""Rules of ``registryctl check`` that need a client, by category: they make findings of evidence, without I/O."""
