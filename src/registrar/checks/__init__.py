"""What can be asked of an endpoint: one file for each type of check."""
