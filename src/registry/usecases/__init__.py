"""Use cases: one method for each thing that the registry does, which HTTP, gRPC and the console call."""
