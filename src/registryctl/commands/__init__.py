"""Verbs, by subject: each imports its libraries when it runs, so that ``--help`` answers at once."""
