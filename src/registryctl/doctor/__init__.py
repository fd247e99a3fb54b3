"""`registryctl check`: what is seen, what is judged, and how it is told."""
