"""The whole system on one laptop: real processes, a real Envoy, and what they did, measured."""
