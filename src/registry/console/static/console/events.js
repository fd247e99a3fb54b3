// The page of events follows the registry's stream; each event that passes the filters makes the list anew.
"use strict";
(() => {
  const form = document.getElementById("filter");
  const said = document.getElementById("following");
  const hold = document.getElementById("hold");
  let stream = null;
  let pending = null;

  const held = () => hold.getAttribute("aria-pressed") === "true";

  function refresh() {
    // Many at once are one reading.
    pending ??= setTimeout(() => { pending = null; htmx.trigger("#live", "refresh"); }, 250);
  }

  function follow() {
    stream?.close();
    stream = null;
    if (held()) { said.textContent = "held"; return; }
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    const opened = stream = new EventSource(`/v1/events?${query}`);
    // What happened between the page and the stream is read once more.
    opened.onopen = () => { said.textContent = "following"; refresh(); };
    opened.onerror = () => {
      said.textContent = "reconnecting";
      // A refusal ends a stream for good, unlike a connection that is lost.
      if (opened.readyState === EventSource.CLOSED) setTimeout(() => { if (stream === opened) follow(); }, 3000);
    };
    for (const kind of form.dataset.kinds.split(" ")) opened.addEventListener(kind, refresh);
  }

  // Also what was asked for before the hold, or is asked for when the page comes back into sight; a filter counts.
  document.addEventListener("htmx:before:swap", (event) => {
    if (held() && event.detail.ctx.sourceEvent?.type === "refresh") event.preventDefault();
  });

  let typing = null;
  form.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(follow, 500); });
  hold.addEventListener("click", () => {
    hold.setAttribute("aria-pressed", String(!held()));
    follow();
  });
  window.addEventListener("pagehide", () => stream?.close());
  window.addEventListener("pageshow", follow);
})();
