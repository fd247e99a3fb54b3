"""The local admin API: its server, its client and its documents."""
