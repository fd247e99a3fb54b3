"""How many examples a property test tries: a few in `make test`, all of them in `make properties`."""

from typing import Any

from hypothesis import settings

WHOLE = "whole"
QUICK = "quick"
MAX_QUICK_EXAMPLES = 25

# Without a deadline: how long an example takes says more about what else runs than about the example.
settings.register_profile(WHOLE, deadline=None)
settings.register_profile(QUICK, deadline=None, max_examples=MAX_QUICK_EXAMPLES)
settings.load_profile(QUICK)


def examples(count: int, **more: Any) -> settings:
    """Return settings that try ``count`` examples in the whole profile, and at most 25 in the quick one."""
    quick = settings.get_current_profile_name() == QUICK
    return settings(max_examples=min(count, MAX_QUICK_EXAMPLES) if quick else count, **more)
