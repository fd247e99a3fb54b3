"""The four acts: traffic spreads, an app dies, one drains, another joins."""

import signal
from collections import Counter

from registry_demo.bounds import (
    REGION,
    REGISTRAR_EXIT,
    STOP_USING_DEAD,
    STOP_USING_DRAINED,
    USE_AGAIN,
    USE_NEW,
)
from registry_demo.measure import Measure, duration, exactly, none_lost
from registry_demo.play import Play, beside, now
from registry_demo.stage import Shop
from registry_demo.traffic import Traffic

_SPREAD = 5.0
_AFTER = 3.0
_WARM = 1.0
_FLAGS = {
    "503 UF": "connection refused",
    "503 UC": "connection broken",
    "503 UH": "no healthy endpoint",
    "504 UT": "no answer in time",
}


async def spread(play: Play) -> None:
    """Let the traffic run over three healthy apps."""
    play.screen.act(1, "Spread", f"{play.traffic.rate:.0f} requests/s through Envoy, three apps, two zones")
    play.screen.doing(f"counting for {_SPREAD:.0f} s")
    shops = list(play.stage.shops.values())
    start = now()
    await play.pause(_SPREAD)
    counts = play.traffic.since(start)
    passed = [counts[shop.endpoint].passed if shop.endpoint in counts else 0 for shop in shops]
    shares = [100 * each / max(sum(passed), 1) for each in passed]
    value = " / ".join(f"{share:.0f}" for share in shares) + " %"
    kept = all(25 <= share <= 42 for share in shares)
    names = ", ".join(shop.name for shop in shops)
    play.keep(Measure(f"traffic shared by {names}", value, "25 to 42 % each", kept, shops[0].registrar))
    play.keep(none_lost("in steady traffic", play.lost(start), shops[0].app))


async def kill(play: Play, shop: Shop) -> None:
    """Kill the app of ``shop``, let Envoy learn it from the registry, and start the app again.

    The same load also goes through the listener of the recommended bootstrap, with its retries and its ejection.
    """
    play.screen.act(2, "Kill", f"SIGKILL to app {shop.name} (pid {shop.app.pid}), its registrar lives on")
    retried = Traffic(play.stage.ports.listener, play.traffic.rate)
    async with beside(retried.run()):
        play.screen.doing(f"as many GETs again, by a listener with retries, for {_WARM:.0f} s")
        await play.pause(_WARM)
        play.screen.doing(f"waiting until Envoy stops using {shop.name}")
        play.stage.dismiss(shop.app)
        start = now()
        shop.app.signal(signal.SIGKILL)
        stopped = await play.unused(shop, start, STOP_USING_DEAD)
    play.keep(duration(f"{shop.name} killed: unused by Envoy after", stopped, STOP_USING_DEAD, shop.registrar))
    end = now() if stopped is None else start + stopped
    _count_lost(play, shop, start, end)
    what = f"lost with retries and ejection, of {retried.total(start, end):,}"
    play.keep(exactly(what, len(retried.failures(start)), 0, play.stage.envoy or shop.registrar))
    await _revive(play, shop)


async def drain(play: Play, shop: Shop) -> None:
    """Stop ``shop`` as a deployment does: its registrar first, and its app when the registrar has gone."""
    registrar = shop.registrar
    play.screen.act(3, "Drain", f"SIGTERM to the registrar of {shop.name} (pid {registrar.pid}), its app serves on")
    play.screen.doing(f"waiting until the registrar of {shop.name} exits")
    play.stage.dismiss(registrar)
    start = now()
    registrar.signal(signal.SIGTERM)
    stopped = await play.unused(shop, start, STOP_USING_DRAINED)
    play.keep(duration(f"{shop.name} drained: unused by Envoy after", stopped, STOP_USING_DRAINED, registrar))
    await _leave(play, shop, start)
    play.screen.doing(f"watching the traffic without {shop.name}")
    await play.pause(_AFTER)
    play.keep(none_lost(f"by the drain, of {play.traffic.total(start):,}", play.lost(start), registrar))


async def join(play: Play, name: str) -> None:
    """Start one more app and its registrar."""
    zone = f"{REGION}c"
    play.screen.act(4, "Join", f"a fourth app, {name}, and its registrar start in {zone}")
    play.screen.doing(f"waiting for the first answer of {name} through Envoy")
    begin = now()
    shop = await play.stage.start_shop(name, zone)
    used = await play.used(shop, now(), USE_NEW)
    play.keep(duration(f"{name} passes its check: used by Envoy after", used, USE_NEW, shop.registrar))
    play.screen.doing(f"watching {name} take its share")
    await play.pause(_AFTER)
    play.keep(none_lost("by the join", play.lost(begin), shop.app))


def _count_lost(play: Play, shop: Shop, start: float, end: float) -> None:
    failures = play.traffic.failures(start)
    elsewhere = [failure for failure in failures if failure.endpoint != shop.endpoint]
    what = f"lost without retries, of {play.traffic.total(start, end):,}"
    play.keep(Measure(what, f"{len(failures):,}", f"only at {shop.name}", not elsewhere, shop.registrar))
    kinds = Counter(_FLAGS.get(failure.failure, failure.failure) for failure in failures).most_common()
    how = ", ".join(f"{count} {kind}" for kind, count in kinds) or "none"
    play.screen.say(f"how: {how}")


async def _revive(play: Play, shop: Shop) -> None:
    play.screen.doing(f"starting app {shop.name} again")
    begin = now()
    await play.stage.start_app_again(shop)
    used = await play.used(shop, now(), USE_AGAIN)
    play.keep(duration(f"{shop.name} passes again: used by Envoy after", used, USE_AGAIN, shop.registrar))
    play.screen.doing(f"watching {shop.name} take its share again")
    await play.pause(_AFTER)
    play.keep(none_lost("by its return", play.lost(begin), shop.app))


async def _leave(play: Play, shop: Shop, start: float) -> None:
    registrar = shop.registrar
    try:
        status: int | None = await registrar.wait(REGISTRAR_EXIT)
    except TimeoutError:
        status = None
    after = None if status is None else now() - start
    play.keep(duration(f"registrar of {shop.name} exited after", after, REGISTRAR_EXIT, registrar))
    value = "none" if status is None else str(status)
    play.keep(Measure("its exit status", value, "0", status == 0, registrar))
    play.screen.say(f"only now app {shop.name} is stopped")
    play.stage.dismiss(shop.app)
    await shop.app.stop(_AFTER)
