"""The console at /ui: pages for people, made on the server from what this process knows in memory."""
