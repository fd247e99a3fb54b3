"""HTTP: the drop-in contracts, discovery, and the native API."""
