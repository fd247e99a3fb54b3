"""The verbs of the command line: one module each, imported on demand.

A health check runs every few seconds, so it must not import the modules of the running registrar.
"""
