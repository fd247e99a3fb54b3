"""What the command line can do: one file for each verb, imported when it is called for.

A health check runs every few seconds, and must not load what only the running registrar needs.
"""
