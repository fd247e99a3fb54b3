"""The doors in front of the application, which answer what is hot without a framework's cost."""
