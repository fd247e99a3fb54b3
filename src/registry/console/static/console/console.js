// The script of every page: keyboard shortcuts, dialogs, and the message when the page is out of date.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const stored = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
  const store = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a private window */ } };
  const clock = () => `${new Date().toISOString().slice(11, 19)} UTC`;

  // -- times ---------------------------------------------------------------------------------------------------
  // By the clock of the database, as all times on the page; the words are those of registry.console.times.
  let offset = 1000 * Number(document.body.dataset.now) - performance.timeOrigin - performance.getEntriesByType("navigation")[0].responseStart;

  function span(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    for (const [size, unit, smaller, smallerUnit] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
      if (whole < size) continue;
      const rest = Math.floor(whole % size / smaller);
      return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${smallerUnit}` : ""}`;
    }
    return `${whole} s`;
  }

  const WORDS = {
    ago: (seconds) => `${span(-seconds)} ago`,
    lasting: (seconds) => span(-seconds),
    until: (seconds) => (seconds >= 0 ? span(seconds) : "over"),
  };

  function tick() {
    // What nobody hears of any more does not grow older on the page either.
    if (document.hidden || document.body.classList.contains("cut-off")) return;
    for (const time of document.querySelectorAll("time[data-words]")) {
      const words = WORDS[time.dataset.words]((Date.parse(time.dateTime) - Date.now() - offset) / 1000);
      if (time.firstChild.data !== words) time.firstChild.data = words;
    }
  }

  setInterval(tick, 1000);

  // -- whether the page is up to date ----------------------------------------------------------------------------
  let heard = clock();
  let etag = null;  // Of what is shown in #live, and of which address.
  let shown = null;

  function hear(response) {
    heard = clock();
    byId("lost").hidden = true;
    document.body.classList.remove("cut-off");
    const time = Number(response?.headers.get("headcount-time"));
    if (time) offset = 1000 * time - Date.now();
  }

  function lose() {
    const lost = byId("lost");
    if (!lost.hidden) return;
    lost.textContent = `No response from the registry since ${heard}; the page is from that time. Retrying.`;
    lost.hidden = false;
    document.body.classList.add("cut-off");
  }

  document.addEventListener("htmx:config:request", (event) => {
    const { ctx } = event.detail;
    if (ctx.sourceEvent?.type === "every" && document.hidden) event.preventDefault();
    // An empty filter is left out of the request, so that the address is readable and can be shared.
    for (const [name, value] of [...ctx.request.body]) if (value === "") ctx.request.body.delete(name);
  });
  document.addEventListener("htmx:before:request", (event) => {
    const { request } = event.detail.ctx;
    // The server answers 304 when it would send what is shown. The browser's own cache has no part in it.
    request.cache = "no-store";
    if (etag && shown === request.action) request.headers["If-None-Match"] = etag;
  });
  document.addEventListener("htmx:after:request", (event) => {
    const { response } = event.detail.ctx;
    if (response?.status === 304) hear(response);
  });
  document.addEventListener("htmx:after:swap", (event) => {
    const { ctx } = event.detail;
    if (ctx.response?.status === 200) {
      hear(ctx.response);
      [etag, shown] = [ctx.response.headers.get("etag"), ctx.request.action];
    }
    tick();
    if (ctx.sourceEvent?.type === "input") history.replaceState(null, "", ctx.request.action);
  });
  document.addEventListener("htmx:response:error", lose);
  document.addEventListener("htmx:error", lose);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && byId("live")) htmx.trigger("#live", "refresh"); });

  // A session that has ended is begun anew, and this page is shown again.
  document.addEventListener("htmx:response:error", (event) => {
    if (event.detail.ctx?.response?.status !== 401) return;
    location.assign(`/ui/login?${new URLSearchParams({ next: location.pathname + location.search })}`);
  });

  // The code of a link signs in once: it is sent by a person's browser alone, and is not kept in its history.
  const once = document.querySelector("form[data-once]");
  if (once) {
    history.replaceState(null, "", location.pathname);
    const send = () => once.requestSubmit();
    if (document.prerendering) document.addEventListener("prerenderingchange", send, { once: true });
    else send();
  }

  // A page of an error reloads itself; the message about a form that was sent is shown once.
  const retry = document.querySelector("[data-retry]");
  if (retry) setTimeout(() => location.reload(), 1000 * Number(retry.dataset.retry));
  const here = new URL(location.href);
  if (here.searchParams.has("done")) {
    here.searchParams.delete("done");
    history.replaceState(null, "", here);
  }

  // -- theme -----------------------------------------------------------------------------------------------------
  // In a cookie, so that the server writes it into each page: a script would come after the first paint.
  const theme = byId("theme");
  theme.addEventListener("change", () => {
    const age = theme.value ? 31536000 : 0;
    document.cookie = `headcount_theme=${theme.value}; path=/ui; max-age=${age}; samesite=lax`;
    paint();
  });

  function paint() {
    const chosen = document.cookie.match(/(?:^|; )headcount_theme=(light|dark)/)?.[1] ?? "";
    if (chosen === (document.documentElement.dataset.theme ?? "")) return;
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
    document.querySelector("meta[name=color-scheme]").content = chosen || "light dark";
    theme.value = chosen;
    document.dispatchEvent(new Event("theme"));
  }

  // A page that the browser kept may be of before the change.
  window.addEventListener("pageshow", paint);

  // -- dialogs ---------------------------------------------------------------------------------------------------
  const FIELDS = ["weight", "canary", "reason", "service", "expected", "shares"];

  function fill(dialog, opener) {
    const form = dialog.querySelector("form");
    if (!form) return;
    for (const name of dialog.querySelectorAll("[data-name]")) name.textContent = opener.dataset.endpoint ?? "";
    if (opener.dataset.base) form.action = `${opener.dataset.base}/${form.dataset.verb}`;
    for (const name of FIELDS) if (form.elements[name]) form.elements[name].value = opener.dataset[name] ?? "";
    // The shown values are sent with the form, so that the server changes only the fields that the operator changed.
    for (const name of ["weight", "canary", "drain"]) {
      if (form.elements[`shown_${name}`]) form.elements[`shown_${name}`].value = opener.dataset[name] ?? "";
    }
    if (form.elements.drain) form.elements.drain.checked = opener.dataset.drain === "true";
    if (dialog.id === "bulk") fillBulk(dialog, form, opener);
    form.elements.who.value = stored("headcount.who") ?? "";
    form.elements.back.value = location.pathname + location.search;
  }

  // -- selected rows ---------------------------------------------------------------------------------------------
  // Kept here and not in the page, whose rows are made anew by updates.
  const picked = new Set();
  const boxes = () => [...document.querySelectorAll("input.pick")];

  function showPicked() {
    const bar = byId("picked");
    if (!bar) return;
    const listed = new Set(boxes().map((box) => box.value));
    for (const name of picked) if (!listed.has(name)) picked.delete(name);
    for (const box of boxes()) box.checked = picked.has(box.value);
    const count = String(picked.size);
    if (byId("picked-count").textContent !== count) byId("picked-count").textContent = count;
    bar.hidden = picked.size === 0;
    const refused = byId("sum").dataset.refused;
    for (const button of bar.querySelectorAll("[data-dialog]")) {
      button.title = refused;
      if (refused) button.setAttribute("aria-disabled", "true");
      else button.removeAttribute("aria-disabled");
    }
  }

  function pick(box, chosen) {
    if (chosen) picked.add(box.value);
    else picked.delete(box.value);
  }

  document.addEventListener("change", (event) => {
    if (!event.target.matches("input.pick")) return;
    pick(event.target, event.target.checked);
    showPicked();
  });
  document.addEventListener("htmx:after:swap", showPicked);
  byId("pick-all")?.addEventListener("click", () => { for (const box of boxes()) pick(box, true); showPicked(); });
  byId("pick-none")?.addEventListener("click", () => { picked.clear(); showPicked(); byId("main").focus(); });

  function fillBulk(dialog, form, opener) {
    const { action } = opener.dataset;
    const names = [...picked];
    for (const words of dialog.querySelectorAll("[data-action-words]")) words.textContent = opener.textContent;
    dialog.querySelector("[data-name]").textContent = names.length === 1 ? names[0] : `${names.length} endpoints`;
    dialog.querySelector("[data-list]").textContent = names.slice(0, 10).join(", ") + (names.length > 10 ? ` and ${names.length - 10} more` : "");
    for (const part of dialog.querySelectorAll("[data-for]")) {
      part.hidden = !part.dataset.for.split(" ").includes(action);
      // A field that is not shown is not sent.
      for (const field of part.querySelectorAll("input, select")) field.disabled = part.hidden;
    }
    form.elements.action.value = action;
    form.elements.endpoints.value = names.join(" ");
    form.elements.force.checked = false;
  }

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-dialog]");
    // A button that the person may not use says why in its title.
    if (opener?.getAttribute("aria-disabled") === "true") return;
    if (opener) {
      const dialog = byId(opener.dataset.dialog);
      fill(dialog, opener);
      dialog.showModal();
    } else if (event.target.closest("[data-close]")) {
      event.target.closest("dialog").close();
    }
  });
  // -- the API's document, and copies ----------------------------------------------------------------------------
  async function showDocument(address) {
    const [link, text] = [byId("json-address"), byId("json-text")];
    [link.href, link.textContent, text.textContent] = [address, `GET ${address}`, "reading"];
    byId("json").showModal();
    try {
      const answer = await fetch(address, { headers: { accept: "application/json" } });
      text.textContent = JSON.stringify(await answer.json(), null, 2);
    } catch (error) {
      text.textContent = `No response from the registry (${error.message}); close this and try again.`;
    }
  }

  async function copy(button, text, element) {
    const words = button.dataset.words ??= button.textContent;
    try {
      // Browsers have it over HTTPS and on localhost only.
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      if (!element) button.replaceChildren(element = Object.assign(document.createElement("span"), { textContent: text }));
      getSelection().selectAllChildren(element);
      button.title = "Selected: press Ctrl+C or ⌘C";
    }
    setTimeout(() => { button.textContent = words; }, 4000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-json], [data-copy], [data-copy-from]");
    if (!button) return;
    const from = button.dataset.copyFrom && byId(button.dataset.copyFrom);
    if (button.dataset.json) showDocument(button.dataset.json);
    else copy(button, from ? from.textContent : button.dataset.copy, from);
  });

  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.elements.who) store("headcount.who", event.target.elements.who.value);
    // A form is sent once; the response is another page.
    for (const button of event.target.querySelectorAll("button")) button.disabled = true;
  });
  window.addEventListener("pageshow", () => { for (const button of document.querySelectorAll("dialog button:disabled")) button.disabled = false; });

  // -- keys ------------------------------------------------------------------------------------------------------
  const PAGES = { o: "/ui/overview", s: "/ui/services", t: "/ui/traffic", b: "/ui/subscribers", m: "/ui/mesh", e: "/ui/events", r: "/ui/registry" };
  const off = byId("keys-off");
  let going = false;

  off.checked = stored("headcount.keys") === "off";
  off.addEventListener("change", () => store("headcount.keys", off.checked ? "off" : "on"));

  function step(by) {
    const rows = [...document.querySelectorAll("a.row")];
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement?.closest("tr")?.querySelector("a.row"));
    const row = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  const KEYS = {
    "/": () => document.querySelector("#filter input[type=search]")?.focus(),
    "?": () => byId("help").showModal(),
    j: () => step(1),
    k: () => step(-1),
    u: () => document.querySelector("[data-up]")?.click(),
    x: () => document.activeElement?.closest("tr")?.querySelector("input.pick")?.click(),
    g: () => { going = true; setTimeout(() => { going = false; }, 1500); },
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, dialog");
    if (event.key === "Escape" && event.target.closest("#filter")) event.target.blur();
    if (typing || off.checked || event.ctrlKey || event.metaKey || event.altKey) return;
    if (going && PAGES[event.key]) { location.assign(PAGES[event.key]); return; }
    going = false;
    const act = KEYS[event.key];
    if (act) { event.preventDefault(); act(); }
  });
})();
