"""The local admin API: its server, its client, and the documents between them."""
