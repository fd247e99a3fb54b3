"""Who this process is and where it can be reached: sources, tried in order."""
