"""Snapshots in the words of Envoy's discovery APIs."""
