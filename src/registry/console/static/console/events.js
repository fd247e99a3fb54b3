// The page of events follows the event stream of the registry; each event that passes the filters reloads the list.
"use strict";
(() => {
  const form = document.getElementById("filter");
  const state = document.getElementById("following");
  const pause = document.getElementById("pause");
  let stream = null;
  let pending = null;

  const paused = () => pause.getAttribute("aria-pressed") === "true";

  function refresh() {
    // Several events within 250 ms reload the list once.
    pending ??= setTimeout(() => { pending = null; htmx.trigger("#live", "refresh"); }, 250);
  }

  function follow() {
    stream?.close();
    stream = null;
    if (paused()) { state.textContent = "paused"; return; }
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    const opened = stream = new EventSource(`/v1/events?${query}`);
    // Events between the response and the start of the stream are read once more.
    opened.onopen = () => { state.textContent = "live"; refresh(); };
    opened.onerror = () => {
      state.textContent = "reconnecting";
      // The browser reconnects after a lost connection, but not after an error response.
      if (opened.readyState === EventSource.CLOSED) setTimeout(() => { if (stream === opened) follow(); }, 3000);
    };
    for (const kind of form.dataset.kinds.split(" ")) opened.addEventListener(kind, refresh);
  }

  // While paused, drop refreshes, also one that was requested before; a change of a filter still updates the list.
  document.addEventListener("htmx:before:swap", (event) => {
    if (paused() && event.detail.ctx.sourceEvent?.type === "refresh") event.preventDefault();
  });

  let typing = null;
  form.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(follow, 500); });
  pause.addEventListener("click", () => {
    pause.setAttribute("aria-pressed", String(!paused()));
    follow();
  });
  window.addEventListener("pagehide", () => stream?.close());
  window.addEventListener("pageshow", follow);
})();
