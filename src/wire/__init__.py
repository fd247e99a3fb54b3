"""What the registry and the registrar must agree on, and nothing else."""
