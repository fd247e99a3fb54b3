"""What HTTP, gRPC and the console call: one function or method for each thing that the registry does."""
