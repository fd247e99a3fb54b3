"""The edge: answers the discovery polls of the Envoy beside this process from memory and disk."""
