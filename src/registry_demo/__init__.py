"""Demo of the whole system on one machine: real processes, a real Envoy, and measurements against bounds."""
