"""Timings of the demo, and the bounds that follow from them; all in seconds."""

REGION = "ap-northeast-1"

RATE = 150.0
"""Requests a second through Envoy."""
KEEP_RATE = 30.0
"""The same while the demo is only kept running: enough to see something, no load on a laptop."""

CHECK_INTERVAL = 0.5
"""Between two checks of an app by its registrar."""
DRAIN_WAIT = 2.0
"""For which a registrar goes on after its drain, so that Envoys learn of it."""
STOP_TIMEOUT = 7.0
"""That a registrar may need to stop; it gives up a drain three seconds before, as when the registry has gone."""
TRAFFIC_INTERVAL = 5.0
"""Between two digests of what Envoy counts; while a shift is under way they are sent each two seconds."""
BASE_EJECTION_TIME = 2.0
"""Shorter than the 30 s of the recommended bootstrap, so that an app that comes back is used within the demo."""
REFRESH_DELAY = 0.2
"""Envoy's, between two polls."""

# The registrar's defaults: they are not set, so that the demo shows what a user gets.
_CHECK_TIMEOUT = CHECK_INTERVAL / 2
_HEALTHY_THRESHOLD = 2
_UNHEALTHY_THRESHOLD = 3

# The time that a change may need from a registrar into Envoy: a heartbeat, of which one a second is sent, and Envoy's
# delay between two polls, which is random up to twice the setting.
_PUBLISH = 1.0 + 2 * REFRESH_DELAY
_PROCESS_START = 2.0

# The bounds of the measures.
STOP_USING_DEAD = _UNHEALTHY_THRESHOLD * CHECK_INTERVAL + _CHECK_TIMEOUT + _PUBLISH
STOP_USING_DRAINED = _PUBLISH
USE_NEW = _PROCESS_START + _HEALTHY_THRESHOLD * CHECK_INTERVAL + _CHECK_TIMEOUT + _PUBLISH
# Flap damping asks twice the passes of an app that failed within a minute of its start.
USE_AGAIN = 2 * _HEALTHY_THRESHOLD * CHECK_INTERVAL + _CHECK_TIMEOUT + _PUBLISH
REGISTRAR_EXIT = DRAIN_WAIT + _PUBLISH + _PROCESS_START
# The digest that learns of the shift, two more, their way to the process that sweeps and its look, and the commands.
TAKE_BACK = TRAFFIC_INTERVAL + 2 * 2.0 + 2 * 1.0 + _PUBLISH + 4 * _PROCESS_START
STARTED = 20.0
"""Until Envoy uses every app of the start."""
