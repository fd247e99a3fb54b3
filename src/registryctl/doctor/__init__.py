"""Doctor of ``registryctl check``: an observer gathers evidence, checks evaluate it, and a report prints findings."""
