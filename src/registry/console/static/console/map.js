// The map of who calls whom, laid out by dagre and drawn as SVG. Its data are in #map-data, which updates replace.
"use strict";
(() => {
  const place = document.getElementById("map");
  const message = document.getElementById("map-message");
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = { alone: 30, placed: 44 };
  const PADDING = 12;
  const MAX_NAME = 200;
  const MAX_WIDTH = 7;
  // Beyond so many pairs the rates of healthy ones are no longer written beside them; pointing at one tells them.
  const MAX_RATES = 40;
  // Where along its line the words of a pair may stand, the best place first.
  const PLACES = [0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82];
  const LINE_HEIGHT = 13;
  // From the middle of a line of words down to what the letters stand on.
  const BASE_LINE = 4;
  // A map may be shown a little smaller than it is before it has to be scrolled.
  const MIN_SCALE = 0.65;

  let drawn = "";
  let edges = [];
  // The boxes of the services, on which no words may lie.
  let services = [];

  // Names are data: they become text and attributes of elements, and never markup.
  function element(name, attributes = {}, ...children) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // The width of an edge grows with the logarithm of its requests: 1.5 for 1/s, 7 for 10,000/s.
  const width = (rate) => Math.min(MAX_WIDTH, 1.5 + 1.35 * Math.max(0, Math.log10(Math.max(rate, 0.01)) + 0.5)).toFixed(2);

  // -- layout ----------------------------------------------------------------------------------------------------
  function measure(svg, kind, words) {
    const text = element("text", { class: kind }, words);
    svg.append(text);
    let shown = words;
    while (text.getComputedTextLength() > MAX_NAME && shown.length > 1) {
      shown = shown.slice(0, Math.floor(shown.length * 0.9));
      text.textContent = `${shown}…`;
    }
    const size = { shown: text.textContent, width: text.getComputedTextLength() };
    text.remove();
    return size;
  }

  function layOut(svg, data) {
    const graph = new dagre.graphlib.Graph();
    const few = data.pairs.length <= MAX_RATES;
    const selfCalls = data.pairs.some(([caller, callee]) => caller === callee);
    graph.setGraph({ rankdir: "LR", nodesep: selfCalls || few ? 34 : 12, edgesep: few ? 34 : 6, ranksep: few ? 140 : 70, marginx: 8, marginy: 24 });
    graph.setDefaultEdgeLabel(() => ({}));
    const sizes = data.nodes.map(([name, zone]) => {
      const [own, below] = [measure(svg, "name", name), measure(svg, "zone", zone)];
      const across = Math.max(own.width, below.width) + 2 * PADDING;
      return { name: own.shown, zone: below.shown, width: across, height: zone ? HEIGHT.placed : HEIGHT.alone };
    });
    // By number: a service may have a name that is a property of every object.
    sizes.forEach((size, number) => graph.setNode(String(number), { width: size.width, height: size.height }));
    for (const [caller, callee] of data.pairs) if (caller !== callee) graph.setEdge(String(caller), String(callee));
    dagre.layout(graph);
    return { graph, sizes };
  }

  // A curve through the middles between the points, which are where dagre bends an edge.
  function curve(points) {
    const at = (point) => `${point.x.toFixed(1)} ${point.y.toFixed(1)}`;
    const middle = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
    const bends = points.slice(1, -1).map((point, i) => `Q${at(point)} ${at(i === points.length - 3 ? points[i + 2] : middle(point, points[i + 2]))}`);
    return `M${at(points[0])}${bends.length ? bends.join("") : `L${at(points[points.length - 1])}`}`;
  }

  // A service that calls itself: a loop above it.
  function loop({ x, y, height }) {
    const top = y - height / 2;
    return `M${x - 9} ${top}C${x - 22} ${top - 22} ${x + 22} ${top - 22} ${x + 9} ${top}`;
  }

  const boxOf = ({ x, y }, { width: across, height: down }) => ({ left: x - across / 2, right: x + across / 2, top: y - down / 2, bottom: y + down / 2 });

  // -- drawing ---------------------------------------------------------------------------------------------------
  function arrows() {
    return element("defs", {}, ...["healthy", "degraded", "unhealthy", "quiet"].map((state) => element(
      "marker",
      { id: `arrow-${state}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto-start-reverse" },
      element("path", { d: "M0 0L8 4L0 8z", class: state }),
    )));
  }

  function edge(graph, [caller, callee]) {
    const line = caller === callee ? loop(graph.node(String(caller))) : curve(graph.edge(String(caller), String(callee)).points);
    const path = element("path", { d: line, class: "line" });
    const tspans = [element("tspan"), element("tspan"), element("tspan")];
    const text = element("text", { "text-anchor": "middle" }, ...tspans);
    const back = element("rect", { rx: 3 });
    const title = element("title");
    return { group: element("g", {}, title, path), label: element("g", {}, back, text), back, text, path, title, tspans };
  }

  // Lines have a length once they are part of the page.
  function measureLine(one) {
    const length = one.path.getTotalLength();
    one.places = PLACES.map((part) => one.path.getPointAtLength(length * part));
    one.place = one.places[0];
  }

  const overlap = (a, b) => Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));

  // Words lie on no other words and on no service: those of failing pairs choose first, and healthy ones that find no
  // place are not written. A pair stays where it is as long as that is free.
  function placeLabels(data) {
    const rank = (pair) => ["unhealthy", "degraded"].indexOf(pair[3]) + 1 || 3;
    const order = data.pairs.map((_, i) => i).sort((a, b) => rank(data.pairs[a]) - rank(data.pairs[b]));
    const taken = [...services];
    for (const i of order) {
      const one = edges[i];
      const lengths = one.tspans.filter((tspan) => tspan.textContent).map((tspan) => tspan.getComputedTextLength());
      const lines = lengths.length;
      const [across, down] = [Math.max(...lengths) + 6, LINE_HEIGHT * lines + 3];
      const box = (place) => boxOf(place, { width: across, height: down });
      const covered = (place) => taken.reduce((sum, other) => sum + overlap(box(place), other), 0);
      let best = one.place;
      let least = lines ? covered(best) : 0;
      for (const place of one.places) {
        if (!least) break;
        const area = covered(place);
        if (area < least) [best, least] = [place, area];
      }
      const written = lines && (!least || rank(data.pairs[i]) < 3);
      one.label.setAttribute("visibility", written ? "visible" : "hidden");
      if (!written) continue;
      one.place = best;
      const { left, top } = box(best);
      taken.push(box(best));
      one.tspans.forEach((tspan, line) => { tspan.setAttribute("x", best.x); tspan.setAttribute("y", best.y + BASE_LINE + LINE_HEIGHT * (line - (lines - 1) / 2)); });
      for (const [side, value] of Object.entries({ x: left, y: top, width: across, height: down })) one.back.setAttribute(side, value);
    }
  }

  function node(graph, size, [name, zone, address], number) {
    const { x, y } = graph.node(String(number));
    const line = (kind, words, offset) => element("text", { class: kind, x, y: y + offset, "text-anchor": "middle" }, words);
    return element(
      "a",
      { href: address, class: "node" },
      element("title", {}, zone ? `${name} in ${zone}` : name),
      element("rect", { x: x - size.width / 2, y: y - size.height / 2, width: size.width, height: size.height, rx: 6 }),
      line("name", size.name, zone ? -2.5 : 4.5),
      ...(zone ? [line("zone", size.zone, 13)] : []),
    );
  }

  function fit() {
    const svg = place.firstElementChild;
    if (!svg) return;
    const { width: across, height: down } = svg.viewBox.baseVal;
    const scale = Math.min(1, Math.max(MIN_SCALE, place.clientWidth / across));
    svg.setAttribute("width", Math.floor(across * scale));
    svg.setAttribute("height", Math.floor(down * scale));
  }

  function draw(data) {
    const svg = element("svg", { role: "group", "aria-labelledby": "map-title" });
    place.replaceChildren(svg);
    const { graph, sizes } = layOut(svg, data);
    const { width: across, height: down } = graph.graph();
    svg.setAttribute("viewBox", `0 0 ${Math.ceil(across)} ${Math.ceil(down)}`);
    edges = data.pairs.map((pair) => edge(graph, pair));
    // Last what is to lie above: services over lines, and words over everything.
    const labels = element("g", {}, ...edges.map((each) => each.label));
    svg.append(arrows(), ...edges.map((each) => each.group), ...data.nodes.map((one, i) => node(graph, sizes[i], one, i)), labels);
    edges.forEach(measureLine);
    services = data.nodes.map((_, i) => boxOf(graph.node(String(i)), sizes[i]));
    fit();
  }

  function paint(data) {
    const few = data.pairs.length <= MAX_RATES;
    data.pairs.forEach(([, , rate, state, lines, words], i) => {
      const { group, label, path, title, tspans } = edges[i];
      const name = state === "no traffic" ? "quiet" : state;
      const written = few || state === "unhealthy" || state === "degraded";
      group.setAttribute("class", `edge ${name}`);
      label.setAttribute("class", `label ${name}`);
      path.setAttribute("stroke-width", width(rate));
      path.setAttribute("marker-end", `url(#arrow-${name})`);
      tspans.forEach((tspan, line) => { tspan.textContent = (written && lines[line]) || ""; });
      title.textContent = words;
    });
    // Lines that fail lie above the others, and so do their words.
    for (const state of ["degraded", "unhealthy"]) {
      const first = place.querySelector(".node");
      data.pairs.forEach((pair, i) => { if (pair[3] !== state) return;
        first.before(edges[i].group);
        edges[i].label.parentNode.append(edges[i].label);
      });
    }
    placeLabels(data);
  }

  function show() {
    const held = document.getElementById("map-data");
    if (!held) return;
    const data = JSON.parse(held.dataset.map);
    const shape = JSON.stringify([data.nodes, data.pairs.map(([caller, callee]) => [caller, callee])]);
    place.closest("figure").hidden = !data.pairs.length;
    if (!data.pairs.length) { drawn = ""; return; }
    try {
      // Numbers change often and pairs seldom: only these lay the map out anew.
      if (shape !== drawn) { draw(data); drawn = shape; }
      paint(data);
      message.textContent = "";
    } catch (error) {
      drawn = "";
      message.textContent = `The map cannot be drawn (${error.message}); the table has every pair.`;
    }
  }

  new ResizeObserver(fit).observe(place);
  document.addEventListener("htmx:after:swap", show);
  show();
})();
