"""Why an errand is not done, though Envoy answers."""


class RefusedError(Exception):
    """An errand cannot be done as it was asked; the text says why, and what to do."""
