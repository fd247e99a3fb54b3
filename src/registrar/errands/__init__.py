"""Errands: what operators ask of the Envoy beside the registrar, by way of the registry."""
