"""The sidecar: checks one instance's endpoints and keeps them registered."""
