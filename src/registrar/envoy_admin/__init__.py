"""The admin interface of the Envoy beside the registrar: where it is, and requests to it."""
