"""The loops of a process: sweeping, following changes, telling subscribers to other processes."""
