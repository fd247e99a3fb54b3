"""Heartbeats: when they leave, and what their answers mean."""
