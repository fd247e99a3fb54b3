"""Mesh configuration on the operator's side: definitions from disk, plans and roll-outs in words."""
