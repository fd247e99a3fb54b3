"""Use cases: one method for each thing that the registry does, which HTTP, gRPC and the console call.

A use case is built once from its parts, in `registry.process`. Its methods take the principal that asks, ask the policy
before they do anything else, and return values; a front reads the request and renders the response.
"""
