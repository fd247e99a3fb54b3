"""Rules that relate the fields of definitions to each other; Envoy accepts nearly all that they refuse."""
