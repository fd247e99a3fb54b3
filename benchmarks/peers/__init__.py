"""The peers that answer the same polls, each in the fastest way that its own documentation offers."""
