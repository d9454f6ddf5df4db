// The trajectory viewer. Everything from a run is written as text, never as markup.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const viewer = document.getElementById("viewer");
  if (!viewer || !data.length) return;
  viewer.hidden = false;

  const SERIES = [
    ["online", "online (while acting)", "var(--c4)", "5 4"],
    ["retrospective", "retrospective", "var(--c0)", ""],
    ["truth", "truth", "var(--c6)", "1.5 3.5"],
  ];
  const byId = (id) => document.getElementById(id);
  const state = { shown: [], at: null, t: 1 };

  function make(tag, props = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (key === "text") node.textContent = value;
      else if (key === "click") node.addEventListener("click", value);
      else node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  }
  function draw(tag, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }
  const number = (value, digits = 3) =>
    typeof value === "number" ? String(Number(value.toFixed(digits))).replace("-", "−") : "–";
  const percent = (value) => (value === null || value === undefined ? "–" : `${value} %`);

  function fill(select, key) {
    for (const name of new Set(data.map((item) => item[key])))
      select.append(make("option", { value: name, text: name }));
  }
  fill(byId("by-source"), "source");
  fill(byId("by-run"), "run");
  byId("by-run-label").hidden = new Set(data.map((item) => item.run)).size < 2;

  function filter() {
    const outcome = byId("by-outcome").value, source = byId("by-source").value;
    const run = byId("by-run").value, kind = byId("by-kind").value;
    state.shown = data.filter((item) =>
      (!outcome || item.won === (outcome === "won")) && (!source || item.source === source) &&
      (!run || item.run === run) && (kind !== "believed" || item.believed) && (kind !== "gap" || item.gap !== null));
    if (kind === "gap") state.shown.sort((a, b) => b.gap - a.gap);
    const number = state.shown.length;
    byId("count").textContent = `${number} of ${data.length} episodes`;
    byId("list").replaceChildren(...state.shown.map(entry));
    if (number) choose(state.shown.includes(state.at) ? state.at : state.shown[0], state.shown.includes(state.at));
    else {
      state.at = null;
      byId("detail").replaceChildren(make("p", { class: "note", text: "No embedded episode passes these filters." }));
    }
  }

  function entry(item) {
    const gap = item.gap === null ? "" : `, gap ${item.gap}`;
    const button = make("button", { type: "button", click: () => choose(item) },
      make("span", { class: item.won ? "won" : "lost", text: item.won ? "won" : "lost" }),
      ` ${item.task}`,
      make("small", { text: `${item.source}, ${item.steps.length} steps${gap}${item.believed ? ", believed nearly done" : ""}` }),
      byId("by-run-label").hidden ? null : make("small", { text: item.run }));
    item.button = button;
    return make("li", {}, button);
  }

  function choose(item, keepStep) {
    if (!keepStep) state.t = 1;
    state.at = item;
    for (const other of state.shown) other.button.setAttribute("aria-current", String(other === item));
    show();
  }
  function go(t) {
    if (!state.at) return;
    const next = Math.min(Math.max(t, 1), state.at.steps.length);
    if (next === state.t) return;
    const focused = document.activeElement && document.activeElement.dataset.go;
    state.t = next;
    show();
    if (focused) {
      const again = byId("detail").querySelector(`[data-go="${focused}"]`);
      if (again && !again.disabled) again.focus({ preventScroll: true });
    }
  }

  function tags(step) {
    const row = make("div", { class: "tags" });
    row.append(make("span", step.valid ? { text: "valid action" } : { class: "bad", text: "invalid action" }));
    if (!step.finished) row.append(make("span", { class: "bad", text: "cut off by the length limit" }));
    for (const defect of step.defects) row.append(make("span", { class: "bad", text: `defect: ${defect}` }));
    return row;
  }
  function block(title, text, className = "") {
    return make("div", {}, make("h4", { text: title }), make("pre", { class: className, text: text === "" ? "(empty)" : text }));
  }
  function table(rows) {
    const body = make("tbody");
    for (const [name, value] of rows)
      body.append(make("tr", {}, make("td", { text: name }), make("td", { class: "n", text: value })));
    return make("div", { class: "scroll" }, make("table", {}, body));
  }
  function numbers(step, item) {
    const rows = [["environment reward", number(step.reward)]];
    for (const [name, value] of Object.entries(step.terms)) rows.push([`term: ${name}`, number(value)]);
    rows.push(["advantage", number(step.advantage)]);
    if (typeof step.entropy === "number") rows.push(["entropy, nats per token", number(step.entropy)]);
    if (typeof step.tokens === "number") rows.push(["sampled tokens", number(step.tokens)]);
    const t = state.t - 1;
    for (const [key, name] of SERIES) {
      const now = item[key][t], before = t ? item[key][t - 1] : 0;
      const known = typeof now === "number" && typeof before === "number";
      const gain = known ? ` (${now >= before ? "+" : "−"}${Math.abs(now - before)})` : "";
      rows.push([`progress, ${name}`, percent(now) + gain]);
    }
    return table(rows);
  }

  function tracks(item) {
    const width = Math.max(280, byId("detail").clientWidth), height = 220;
    const left = 44, right = 14, top = 12, bottom = 40;
    const count = item.steps.length;
    const x = (t) => left + ((width - left - right) * t) / count;
    const y = (value) => height - bottom - ((height - top - bottom) * value) / 100;
    const svg = draw("svg", { class: "tracks", viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": "Online, retrospective and true progress after each step" });
    for (const value of [0, 25, 50, 75, 100]) {
      svg.append(draw("line", { class: "rule", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
      svg.append(draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
    }
    const every = Math.ceil((count * 34) / (width - left - right));
    for (let t = 0; t <= count; t += every)
      svg.append(draw("text", { x: x(t), y: height - bottom + 16, "text-anchor": "middle" }, String(t)));
    svg.append(draw("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, "step"));
    svg.append(draw("text", { x: 11, y: (height - bottom + top) / 2, "text-anchor": "middle",
      transform: `rotate(-90 11 ${(height - bottom + top) / 2})` }, "progress, %"));
    svg.append(draw("line", { class: "now", x1: x(state.t), x2: x(state.t), y1: top, y2: height - bottom }));
    for (const [key, , color, dash] of SERIES) {
      const values = [item[key].some((v) => v !== null) ? 0 : null, ...item[key]];
      let path = "", open = false;
      values.forEach((value, t) => {  // a missing value breaks the line
        if (value === null) open = false;
        else { path += `${open ? "L" : "M"}${x(t)} ${y(value)}`; open = true; }
      });
      if (path) svg.append(draw("path", { d: path, style: `fill: none; stroke: ${color}`, "stroke-width": 2, "stroke-dasharray": dash || "none" }));
      values.forEach((value, t) => {
        if (value !== null && t) svg.append(draw("circle", { cx: x(t), cy: y(value), r: t === state.t ? 5 : 2.6, style: `fill: ${color}` }));
      });
    }
    for (let t = 1; t <= count; t++) {
      const hit = draw("rect", { class: "hit", x: x(t - 0.5), y: 0, width: x(1) - x(0), height });
      hit.addEventListener("click", () => go(t));
      svg.append(hit);
    }
    return svg;
  }
  function legend(item) {
    const list = make("ul", { class: "legend" });
    for (const [key, name, color, dash] of SERIES) {
      const swatch = draw("svg", { viewBox: "0 0 30 8", "aria-hidden": "true" });
      swatch.append(draw("line", { x1: 1, x2: 29, y1: 4, y2: 4, style: `stroke: ${color}`, "stroke-width": 2.5, "stroke-dasharray": dash || "none" }));
      const absent = item[key].every((value) => value === null) ? ": not given" : "";
      list.append(make("li", {}, swatch, make("span", { text: name + absent })));
    }
    return list;
  }
  function reflected(item) {
    const part = item.reflection;
    if (!part) return make("p", { class: "basis", text: "No reflection was recorded for this episode." });
    const row = make("div", { class: "tags" });
    row.append(make("span", part.usable ? { text: "valid reflection" } : { class: "bad", text: "no usable values" }));
    for (const defect of part.defects) row.append(make("span", { class: "bad", text: `defect: ${defect}` }));
    const rows = Object.entries(part.terms).map(([name, value]) => [`term: ${name}`, number(value)]);
    rows.push(["advantage", number(part.advantage)]);
    return make("details", {}, make("summary", { text: "Reflection on the whole episode" }), row,
      make("pre", { text: part.text === "" ? "(empty)" : part.text }), table(rows));
  }

  function show() {
    const item = state.at, step = item.steps[state.t - 1], last = state.t === item.steps.length;
    const outcome = [`score ${number(item.score)}`, `return ${number(item.return)}`];
    if (item.rollout !== null) outcome.unshift(`rollout ${item.rollout}`);
    if (item.truncated) outcome.push("step limit reached");
    const button = (name, text, t, off) => {
      const node = make("button", { type: "button", "data-go": name, text, click: () => go(t) });
      node.disabled = off;
      return node;
    };
    const steps = make("div", { class: "steps" },
      button("first", "First", 1, state.t === 1), button("back", "← Back", state.t - 1, state.t === 1),
      make("output", { text: `step ${state.t} of ${item.steps.length}` }),
      button("next", "Next →", state.t + 1, last), button("last", "Last", item.steps.length, last));
    byId("detail").replaceChildren(
      make("h3", {}, make("span", { class: item.won ? "won" : "lost", text: item.won ? "won" : "lost" }), ` ${item.task}`),
      make("p", { class: "basis", text: `${item.run}, ${item.source}, ${outcome.join(", ")}. ${item.goal}` }),
      ...(item.error ? [make("p", { class: "note", text: `Environment error: ${item.error}` })] : []),
      tracks(item), legend(item), steps,
      make("div", { class: "pair" },
        make("div", {}, block("Observation before the action", step.observation, "grid-text"),
          step.feedback ? block("Feedback", step.feedback) : null,
          last && item.final ? block("Final observation", item.final, "grid-text") : null),
        make("div", {}, block("Completion, as sampled", step.text), block("Action sent", step.action), tags(step),
          make("h4", { text: "Rewards and progress of this step" }), numbers(step, item))),
      reflected(item));
  }

  for (const id of ["by-outcome", "by-source", "by-run", "by-kind"]) byId(id).addEventListener("change", filter);
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    if (event.target.closest("select, input, textarea, .scroll")) return;
    const box = viewer.getBoundingClientRect();
    if (box.bottom < 0 || box.top > window.innerHeight) return;  // the viewer is out of sight
    go(state.t + (event.key === "ArrowRight" ? 1 : -1));
    event.preventDefault();
  });
  let waiting = 0;
  window.addEventListener("resize", () => {  // the chart is drawn in real pixels
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => state.at && show());
  });
  filter();
})();
