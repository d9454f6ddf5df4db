// The trajectory viewer of the report, with the parts of episode.js. Everything from a run is written as text.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const viewer = document.getElementById("viewer");
  if (!viewer || !data.length) return;
  viewer.hidden = false;

  const { make, number, block, tags, numbers, tracks, legend, reflected } = Episode;
  const byId = (id) => document.getElementById(id);
  const state = { passing: [], current: null, t: 1 };

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
    state.passing = data.filter((item) =>
      (!outcome || item.won === (outcome === "won")) && (!source || item.source === source) &&
      (!run || item.run === run) && (kind !== "believed" || item.believed) && (kind !== "gap" || item.gap !== null));
    if (kind === "gap") state.passing.sort((a, b) => b.gap - a.gap);
    const number = state.passing.length;
    byId("count").textContent = `${number} of ${data.length} episodes`;
    byId("list").replaceChildren(...state.passing.map(entry));
    if (number) choose(state.passing.includes(state.current) ? state.current : state.passing[0], state.passing.includes(state.current));
    else {
      state.current = null;
      byId("detail").replaceChildren(make("p", { class: "note", text: "No episode on this page passes these filters." }));
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
    state.current = item;
    for (const other of state.passing) other.button.setAttribute("aria-current", String(other === item));
    show();
  }
  function go(t) {
    if (!state.current) return;
    const next = Math.min(Math.max(t, 1), state.current.steps.length);
    if (next === state.t) return;
    const focused = document.activeElement && document.activeElement.dataset.go;
    state.t = next;
    show();
    if (focused) {
      const again = byId("detail").querySelector(`[data-go="${focused}"]`);
      if (again && !again.disabled) again.focus({ preventScroll: true });
    }
  }

  function show() {
    const item = state.current, step = item.steps[state.t - 1], last = state.t === item.steps.length;
    const outcome = [`score ${number(item.score)}`, `return ${number(item.return)}`];
    if (item.rollout !== null) outcome.unshift(`rollout ${item.rollout}`);
    if (item.truncated) outcome.push(item.context_full ? "conversation full" : "step limit reached");
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
      tracks(item, state.t, byId("detail").clientWidth, go), legend(item), steps,
      make("div", { class: "pair" },
        make("div", {}, block("Observation before the action", step.observation, "grid-text"),
          step.feedback ? block("Feedback", step.feedback) : null,
          last && item.final ? block("Final observation", item.final, "grid-text") : null),
        make("div", {}, block("Completion, as sampled", step.text), block("Action sent", step.action), tags(step),
          make("h4", { text: "Rewards and progress of this step" }), numbers(item, state.t))),
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
    waiting = requestAnimationFrame(() => state.current && show());
  });
  filter();
})();
