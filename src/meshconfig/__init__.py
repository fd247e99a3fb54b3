"""Mesh configuration: from definitions to Envoy's clusters, routes and listeners. Pure: nothing here does I/O."""
