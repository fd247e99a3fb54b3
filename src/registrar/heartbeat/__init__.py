"""The heartbeats: their schedule, the request, and what its response does to the endpoints."""
