"""The server: API, leases, snapshots, discovery."""
