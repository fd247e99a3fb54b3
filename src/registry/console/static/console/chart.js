// The chart of a service's endpoints by status over time, drawn with uPlot from the history.
"use strict";
(() => {
  const place = document.getElementById("chart");
  const message = document.getElementById("chart-message");
  // From the ground up: what serves, then what does not. Words in the legend and the order tell areas apart without colour.
  const ORDER = ["HEALTHY", "DEGRADED", "SILENT", "UNHEALTHY", "DRAINING", "TIMEOUT"];
  // Letters of the marks, as in the list below the chart.
  const LETTERS = { drain: "D", deploy: "R", lost: "L", guard: "G" };
  const list = document.getElementById("chart-marks");
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

  let marks = [];

  function drawMarks(chart) {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.fillStyle = ctx.strokeStyle = colour("text");
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.textAlign = "center";
    // Letters stand beside each other where their lines are too near.
    let free = 0;
    for (const mark of marks) {
      const x = Math.round(chart.valToPos(mark.at, "x", true));
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const letter = Math.max(x, free);
      ctx.fillText(LETTERS[mark.kind], letter, bbox.top - 3 * devicePixelRatio);
      free = letter + 11 * devicePixelRatio;
    }
    ctx.restore();
  }

  function listMarks() {
    list.replaceChildren(...marks.slice(-20).reverse().map((mark) => {
      const item = document.createElement("li");
      item.append(Object.assign(document.createElement("b"), { textContent: LETTERS[mark.kind] }), ` ${utc(mark.at, 11, 19)} ${mark.words}`);
      return item;
    }));
  }

  function draw(counts) {
    const shown = ORDER.filter((name) => name === "HEALTHY" || counts.statuses[name].some(Boolean));
    // Each area reaches down to the axis and is drawn over the one above it, so the highest comes first.
    const height = counts.at.map(() => 0);
    const areas = shown.map((name) => { counts.statuses[name].forEach((count, i) => { height[i] += count; }); return [...height]; });
    const names = [...shown].reverse();
    const data = [counts.at, ...areas.reverse()];
    const raw = [null, ...names.map((name) => counts.statuses[name])];
    marks = counts.marks;
    listMarks();
    if (plot && shape === names.join()) { plot.raw = raw; plot.setData(data); return; }
    plot?.destroy();
    shape = names.join();
    plot = new uPlot({
      width: place.clientWidth - 16,
      height: HEIGHT,
      padding: [18, 8, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { y: { range: (_plot, _low, high) => [0, Math.max(1, high) * 1.1] } },
      axes: [{ ...axis(), values: (_plot, times) => times.map((at) => utc(at, 11, 16)) }, { ...axis(), size: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] }],
      hooks: { draw: [drawMarks] },
      series: [
        { label: "UTC", value: (_plot, at) => (at == null ? "--" : utc(at, 5, 19)) },
        ...names.map((name) => ({
          label: name, stroke: colour(name.toLowerCase()), fill: colour(`${name.toLowerCase()}-back`), width: 1.5, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false },
          value: (chart, _height, series, i) => (i == null ? "--" : chart.raw[series][i]),
        })),
      ],
    }, data, place);
    plot.raw = raw;
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

  place.addEventListener("click", (event) => {
    if (!plot || !event.target.closest(".u-over")) return;
    const at = new Date(1000 * plot.posToVal(plot.cursor.left, "x")).toISOString().slice(0, 19);
    location.assign(`${place.dataset.past}?${new URLSearchParams({ at })}`);
  });

  new ResizeObserver(() => plot?.setSize({ width: place.clientWidth - 16, height: HEIGHT })).observe(place);
  const repaint = () => { shape = ""; read(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  document.addEventListener("theme", repaint);
  setInterval(() => { if (!document.hidden) read(); }, EVERY);
  read();
})();
