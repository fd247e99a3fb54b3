"""The roll-out of a revision of the mesh configuration: how Envoys come from what is served to what is wanted."""
