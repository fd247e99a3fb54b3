"""Importers: configuration of other meshes as files of a mesh repository, with a list of all that is lost."""
