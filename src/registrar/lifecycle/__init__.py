"""How a registrar starts, reloads and stops, with or without its app as a child."""
