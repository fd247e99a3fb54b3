"""The gRPC listener: HTTP/2 connections and their streams. A ``Service`` knows what the methods mean."""
