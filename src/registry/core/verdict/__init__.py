"""The verdict on the registry: rules that make findings of facts, without I/O; time is an argument.

Each module named after a category has the rules of that category. ``registry.usecases.verdict`` collects the facts.
"""
