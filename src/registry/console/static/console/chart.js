// The chart of a service's endpoints by status over time, drawn with uPlot from the history.
"use strict";
(() => {
  const place = document.getElementById("chart");
  const message = document.getElementById("chart-message");
  // Dashes tell the lines apart without colour.
  const DASHES = { HEALTHY: [], DEGRADED: [8, 3], UNHEALTHY: [2, 2], DRAINING: [10, 3, 2, 3], TIMEOUT: [5, 5], SILENT: [1, 4] };
  const EVERY = 10000;
  let plot = null;
  let shape = "";

  // A canvas knows no variables: an element resolves them.
  const colour = (name) => { message.style.color = `var(--${name})`; const rgb = getComputedStyle(message).color; message.style.color = ""; return rgb; };
  const HEIGHT = 210;
  const utc = (seconds, from, to) => new Date(seconds * 1000).toISOString().slice(from, to).replace("T", " ");

  function axis() {
    return { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
  }

  function draw(counts) {
    const shown = Object.keys(counts.statuses).filter((name) => name === "HEALTHY" || counts.statuses[name].some(Boolean));
    const data = [counts.at, ...shown.map((name) => counts.statuses[name])];
    if (plot && shape === shown.join()) { plot.setData(data); return; }
    plot?.destroy();
    shape = shown.join();
    plot = new uPlot({
      width: place.clientWidth - 16,
      height: HEIGHT,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { y: { range: (_plot, _low, high) => [0, Math.max(1, high) * 1.1] } },
      axes: [{ ...axis(), values: (_plot, times) => times.map((at) => utc(at, 11, 16)) }, { ...axis(), size: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] }],
      series: [
        { label: "UTC", value: (_plot, at) => (at == null ? "--" : utc(at, 5, 19)) },
        ...shown.map((name) => ({
          label: name, stroke: colour(name.toLowerCase()), width: 2, dash: DASHES[name], paths: uPlot.paths.stepped({ align: 1 }), points: { show: false },
        })),
      ],
    }, data, place);
  }

  async function read() {
    try {
      const answer = await fetch(place.dataset.from, { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      draw(await answer.json());
      message.textContent = "";
    } catch (error) {
      message.textContent = `The history is unavailable (${error.message}); retrying.`;
    }
  }

  new ResizeObserver(() => plot?.setSize({ width: place.clientWidth - 16, height: HEIGHT })).observe(place);
  const repaint = () => { shape = ""; read(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  document.addEventListener("theme", repaint);
  setInterval(() => { if (!document.hidden) read(); }, EVERY);
  read();
})();
