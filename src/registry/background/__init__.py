"""The loops of a process: it sweeps, follows changes, and exchanges subscribers and reports with other processes."""
