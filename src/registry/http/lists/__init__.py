"""The lists of services, endpoints and targets, encoded once for as long as they are the same."""
