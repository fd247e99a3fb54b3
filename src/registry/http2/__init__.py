"""The gRPC listener: HTTP/2 connections and their streams. What the methods mean is the business of a ``Service``."""
