"""Digests of the statistics of the Envoy beside the registrar, for the registry's figures of traffic."""
