"""Probes of endpoints of the same service, when the registry asks for them and REGISTRAR_PROBES is on."""
