"""Sources of the instance's identity and address, tried in order."""
