"""The settings: flags, environment, files, and what is wrong with them."""
