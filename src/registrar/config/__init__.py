"""The settings: their definitions, and how flags, environment and files are read and validated."""
