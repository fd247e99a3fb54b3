"""Real parts for the tests: PostgreSQL, registry processes, Envoy."""
