"""The benchmarks: what Headcount costs and how fast it is, beside its peers, in one run on one machine.

``make bench`` runs all of them; ``python -m benchmarks discovery`` runs one. Each is a module with a function
``run(part, plan)`` that fills in its part of the report.
"""

import sys
from pathlib import Path

# The tests' harness starts the same real parts: registries, PostgreSQL, Envoy.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
