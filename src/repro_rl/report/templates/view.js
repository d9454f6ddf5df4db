// The page of `repro-rl view`. The address after # holds filters, episode and step, so that it can be shared.
// Everything from a run is written as text (see episode.js).
(() => {
  "use strict";
  const { SERIES, board, make, draw, number, percent, block, tags, numbers, outline, tracks, legend, reflected } = Episode;
  const byId = (id) => document.getElementById(id);
  const FILTERS = ["run", "source", "outcome", "kind", "task", "trouble", "believed", "gap", "text", "sort", "down"];
  const SORTS = [["file", "order of the files"], ["believed", "progress claimed"], ["gap", "online–retrospective gap"],
    ["online_error", "online–true gap"], ["retrospective_error", "retrospective–true gap"], ["online", "last online"],
    ["retrospective", "last retrospective"], ["truth", "last true"], ["score", "score"], ["length", "steps"],
    ["invalid", "invalid actions"], ["malformed", "broken completions"], ["outcome", "outcome"], ["task", "task"]];
  const PRESETS = [
    ["Believed nearly done, lost", "Failures that claimed at least 80 %, online or in retrospect", { outcome: "lost", believed: "80", sort: "believed", down: "1" }],
    ["Online ≠ retrospective", "Largest gap between online and retrospective progress", { sort: "gap", down: "1" }],
    ["Retrospective ≠ true", "Largest gap between retrospective and true progress", { sort: "retrospective_error", down: "1" }],
    ["Online ≠ true", "Largest gap between online and true progress", { sort: "online_error", down: "1" }],
    ["Nearly won", "Failures with the highest true progress after their last step", { outcome: "lost", sort: "truth", down: "1" }],
    ["Broken reflections", "Reflections that do not give one usable value for each step", { trouble: "reflection" }],
    ["Invalid actions", "Most refused actions first", { trouble: "invalid", sort: "invalid", down: "1" }],
    ["Broken form", "Completions with a defect of form", { trouble: "form", sort: "malformed", down: "1" }],
    ["Environment errors", "Episodes that broke off", { outcome: "error" }],
  ];
  const COLUMNS = [["task", "Episode", "", "Task, outcome, file"], [null, "Progress", "", "Online and retrospective progress; true progress as a wide grey line"],
    ["length", "Steps", "n", "Steps"], ["online", "Online", "n", "Last online progress"],
    ["retrospective", "Retrosp.", "n", "Last retrospective progress"], ["truth", "True", "n", "Last true progress"],
    ["gap", "Gap", "n", "Largest online–retrospective gap"], [null, "", "", "i: invalid actions, f: broken form, r: broken reflection"]];
  const UP_FIRST = new Set(["file", "task", "outcome"]);
  const state = { query: {}, at: "", beside: "", t: 1, offset: 0, data: null, choices: { version: -1, runs: [] }, item: null, other: null, listRequest: 0, episodeRequest: 0 };

  async function ask(path, fields) {
    const answer = await fetch(`${path}?${new URLSearchParams(fields)}`);
    const value = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
    if (!answer.ok) throw new Error(value.error || `The server answered ${answer.status}.`);
    return value;
  }

  // The address ------------------------------------------------------------------------------------
  function address() {
    const fields = new URLSearchParams(state.query);
    if (state.at) { fields.set("at", state.at); if (state.t > 1) fields.set("t", state.t); }
    if (state.beside) fields.set("beside", state.beside);
    return `#${fields}`;
  }
  function saveAddress(push = false) {
    const next = address();
    if (next !== location.hash) history[push ? "pushState" : "replaceState"](null, "", next);
  }
  function readAddress() {  // when the page opens, and when the address is edited or the reader goes back
    const fields = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    state.query = {};
    for (const key of FILTERS) if (fields[key] !== undefined && (fields[key] !== "" || key === "kind")) state.query[key] = fields[key];
    state.at = fields.at || "";
    state.beside = fields.beside || "";
    const t = /^\d{1,6}$/.test(fields.t || "") ? Number(fields.t) : null;
    state.item = null;
    load({ t });
  }

  // The list ---------------------------------------------------------------------------------------
  let timer = 0;
  async function load({ offset = null, pick = "keep", t = null, quiet = false } = {}) {
    clearTimeout(timer);
    const request = ++state.listRequest, fields = { ...state.query };
    if (offset === null && state.at && pick === "keep") fields.around = state.at;
    fields.offset = offset === null ? (quiet ? state.offset : 0) : offset;
    if (!quiet) byId("episodes").classList.add("busy");
    let data;
    try {
      data = await ask("/api/list", fields);
      if (request !== state.listRequest) return;
      if (data.version !== state.choices.version && !(data.waiting && state.choices.version >= 0)) {
        const choices = await ask("/api/choices", {});
        if (request !== state.listRequest) return;
        state.choices = choices;
      }
      byId("episodes").classList.remove("busy");
    } catch (error) {
      if (request !== state.listRequest) return;
      byId("notes").replaceChildren(make("p", { class: "note", text: error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message }));
      if (error instanceof TypeError) timer = setTimeout(() => load({ quiet: true }), 5000);
      return;
    }
    const changed = !quiet || !state.data || JSON.stringify(data.rows) !== JSON.stringify(state.data.rows);
    state.data = data;
    state.offset = data.offset;
    controls();
    status();
    if (changed) list();
    // While files are left to read, ask again at once; then look for new ones now and then (a run may still train).
    if (data.waiting || data.searching) timer = setTimeout(() => load({ quiet: true, pick }), 50);
    else timer = setTimeout(() => (document.hidden ? (timer = 0) : load({ quiet: true })), 10000);
    if (quiet && state.item) return;
    const rows = data.rows;
    if (pick === "last" && rows.length) choose(rows[rows.length - 1]);
    else if ((pick === "first" || !state.at) && rows.length) choose(rows[0]);
    else if (state.at && !state.item) open(state.at, t);
    else if (!rows.length && !state.at) byId("detail").replaceChildren();
    else if (state.at && pick === "keep" && rows.length && !rows.some((row) => row.key === state.at) && !t) choose(rows[0]);
  }

  function status() {
    const { count, won, total, rows, offset, page, waiting, searching, files } = state.data;
    const share = count ? `, ${won} won` : "";
    byId("count").replaceChildren(make("b", { text: `${count}` }), ` of ${total} episodes${share}`,
      waiting ? ` · reading files, ${files - waiting} of ${files}` : searching ? ` · searching, ${searching} files to go` : "");
    byId("page").textContent = count > page ? `${offset + 1}–${offset + rows.length}` : "";
    byId("previous-page").hidden = byId("next-page").hidden = count <= page;
    byId("previous-page").disabled = offset === 0;
    byId("next-page").disabled = offset + page >= count;
    byId("notes").replaceChildren(...state.data.notes.map((text) => make("p", { class: "note", text })));
  }

  function options(select, entries, value) {
    select.replaceChildren(...entries.map(([key, text]) => make("option", { value: key, text })));
    if (![...select.options].some((option) => option.value === value)) select.append(make("option", { value, text: value }));
    select.value = value;
  }
  const ALL = "\u0000all";  // a task type may be ""
  function controls() {
    const { query, choices } = state, counted = ([name, count]) => [name, `${name || "(none)"} (${count})`];
    if (document.activeElement !== byId("f-text")) byId("f-text").value = query.text || "";
    byId("f-outcome").value = query.outcome || "";
    for (const key of ["believed", "gap"]) if (document.activeElement !== byId(`f-${key}`)) byId(`f-${key}`).value = query[key] || "";
    options(byId("f-run"), [["", "all"], ...choices.runs.map((run, i) => [String(i), run.label])], query.run || "");
    byId("run-label").hidden = choices.runs.length < 2;
    options(byId("f-source"), [["", "all"], ...(choices.sources || []).map(counted)], query.source || "");
    options(byId("f-kind"), [[ALL, "all"], ...(choices.kinds || []).map(counted)], query.kind === undefined ? ALL : query.kind);
    byId("kind-label").hidden = (choices.kinds || []).length < 2 && query.kind === undefined;
    options(byId("f-trouble"), [["", "any"], ["invalid", "invalid actions"], ["form", "broken form"], ["reflection", "broken reflection"],
      ...(choices.defects || []).map(([name, count]) => [`defect:${name}`, `${name} (${count})`])], query.trouble || "");
    options(byId("f-sort"), SORTS, query.sort || "file");
    byId("down").textContent = query.down ? "↓" : "↑";
    byId("down").setAttribute("aria-label", query.down ? "largest first" : "smallest first");
    byId("task-chip").hidden = !query.task;
    if (query.task) byId("task-chip").replaceChildren(`task ${query.task}`, make("button", { type: "button", text: "×", "aria-label": "All tasks", click: () => set({ task: "" }, true) }));
    byId("runs").textContent = choices.runs.map((run) => run.label).join(", ");
    byId("runs").title = choices.runs.map((run) => `${run.label}: ${run.folder}`).join("\n");
    byId("presets").replaceChildren(...PRESETS.map(([text, title, filters]) => {
      const same = Object.keys({ ...filters, ...query }).every((key) => (filters[key] || "") === (query[key] || "") || key === "run" || key === "source");
      return make("button", { type: "button", text, title, "aria-pressed": String(same), click: () => {
        const { run, source } = state.query;
        state.query = same ? {} : { ...filters };
        if (run !== undefined) state.query.run = run;
        if (source !== undefined) state.query.source = source;
        state.at = ""; state.beside = ""; state.item = null;
        load({ pick: "first" }).then(() => saveAddress(true));
      } });
    }));
    byId("columns").replaceChildren(...COLUMNS.map(([key, text, kind, title]) => make("th", { class: kind, title, scope: "col" }, key === null ? text :
      make("button", { type: "button", text, click: () => order(key) }, query.sort === key ? make("span", { class: "dir", text: query.down ? "↓" : "↑" }) : null))));
  }
  function order(key) {
    const again = state.query.sort === key;
    set({ sort: key, down: (again ? !state.query.down : !UP_FIRST.has(key)) ? "1" : "" });
  }
  function set(fields, push = false) {
    for (const [key, value] of Object.entries(fields)) {
      if (value === "" && key !== "kind" || value === undefined) delete state.query[key];
      else state.query[key] = value;
    }
    load().then(() => saveAddress(push));
  }

  function spark(row) {
    const svg = draw("svg", { class: "spark", viewBox: "0 0 68 24", "aria-hidden": "true" });
    const x = (t) => 1 + (66 * t) / Math.max(1, row.length), y = (value) => 22 - (20 * value) / 100;
    for (const [key] of [...SERIES].reverse()) {
      const path = outline(row[key], (t) => x(t).toFixed(1), (value) => y(value).toFixed(1));
      if (path) svg.append(draw("path", { d: path, class: `of-${key} stroke` }));
    }
    return svg;
  }
  const outcome = (row) => make("span", { class: row.outcome, text: row.outcome });
  const end = (values) => { const value = values[values.length - 1]; return typeof value === "number" ? String(value) : "–"; };
  const where = (row) => `${row.source}${row.rollout === null ? "" : `, rollout ${row.rollout}`}`;
  const runOf = (row) => (state.choices.runs.length > 1 ? ` · ${(state.choices.runs[row.run] || {}).label}` : "");
  function list() {
    byId("rows").replaceChildren(...state.data.rows.map((row) => {
      const flags = [[row.invalid, "i", `${row.invalid} invalid actions`], [row.malformed, "f", `${row.malformed} completions with a defect`], [row.judged === "broken", "r", "broken reflection"]];
      const line = make("tr", { "data-key": row.key, title: row.task, click: () => choose(row) },
        make("td", {}, make("div", { class: "task" }, outcome(row), make("span", { class: "name" }, make("bdi", { text: row.task }))), make("small", { text: where(row) + runOf(row) })),
        make("td", {}, spark(row)), make("td", { class: "n", text: String(row.length) }),
        make("td", { class: "n", text: end(row.online) }), make("td", { class: "n", text: end(row.retrospective) }),
        make("td", { class: "n", text: end(row.truth) }), make("td", { class: "n", text: row.gap ? String(row.gap.points) : "–" }),
        make("td", {}, ...flags.filter(([there]) => there).map(([, text, title]) => make("span", { class: "flag", text, title }))));
      line.setAttribute("aria-current", String(row.key === state.at));
      return line;
    }));
    if (!state.data.rows.length) byId("rows").replaceChildren(make("tr", {}, make("td", { class: "empty", colspan: "8",
      text: state.data.waiting || state.data.searching ? "Nothing yet …" : state.data.total ? "No episode passes these filters." : "No episode is recorded yet; new ones will appear here." })));
    reveal();
  }
  function reveal() {
    const current = byId("rows").querySelector('[aria-current="true"]');
    if (!current) return;
    const box = byId("episodes").getBoundingClientRect(), line = current.getBoundingClientRect();
    if (line.top < box.top + 30) byId("episodes").scrollTop -= box.top + 30 - line.top;
    else if (line.bottom > box.bottom) byId("episodes").scrollTop += line.bottom - box.bottom;
  }
  // The step at which the value that the list is sorted by occurs.
  function sortedStep(row) {
    const worst = row[state.query.sort];
    return worst && typeof worst === "object" ? worst.step : null;
  }
  function choose(row) { open(row.key, sortedStep(row) || 1); }
  function next(way) {
    const { rows, offset, page, count } = state.data || { rows: [] };
    const index = rows.findIndex((row) => row.key === state.at);
    if (index < 0) { if (rows.length) choose(rows[0]); return; }
    if (rows[index + way]) choose(rows[index + way]);
    else if (way > 0 && offset + page < count) load({ offset: offset + page, pick: "first" });
    else if (way < 0 && offset > 0) load({ offset: offset - page, pick: "last" });
  }

  // The episode ------------------------------------------------------------------------------------
  async function open(key, t = null, beside = state.beside) {
    state.at = key;
    state.beside = beside === key ? "" : beside;
    for (const line of byId("rows").children) line.setAttribute("aria-current", String(line.dataset.key === key));
    reveal();
    const request = ++state.episodeRequest;
    let item, other = null;
    try {
      [item, other] = await Promise.all([ask("/api/episode", { key }), state.beside ? ask("/api/episode", { key: state.beside }).catch(() => null) : null]);
    } catch (error) {
      if (request === state.episodeRequest) { state.item = null; byId("detail").replaceChildren(make("p", { class: "note", text: error.message })); }
      return;
    }
    if (request !== state.episodeRequest) return;
    if (other && other.task !== item.task) { other = null; state.beside = ""; }
    state.item = item;
    state.other = other;
    const hit = needle() ? item.steps.findIndex((step) => matches(step)) + 1 : 0;
    state.t = Math.min(Math.max(hit && (t === null || t === 1) ? hit : t || 1, 1), Math.max(1, item.steps.length));
    show();
    byId("detail").scrollTop = 0;
    saveAddress();
  }
  const needle = () => (state.query.text || "").trim().toLowerCase();
  const matches = (step) => [step.observation, step.text, step.action, step.feedback].some((text) => text.toLowerCase().includes(needle()));
  function go(t) {
    if (!state.item) return;
    const longest = Math.max(state.item.steps.length, state.other ? state.other.steps.length : 0);
    const target = Math.min(Math.max(t, 1), longest);
    if (target === state.t) return;
    const focused = document.activeElement && document.activeElement.dataset.go, top = byId("detail").scrollTop;
    state.t = target;
    show();
    byId("detail").scrollTop = top;
    if (focused) { const again = byId("detail").querySelector(`[data-go="${focused}"]`); if (again && !again.disabled) again.focus({ preventScroll: true }); }
    saveAddress();
  }

  function timeline(item, t) {
    const line = (step, i) => {
      const cells = SERIES.map(([key]) => {
        const now = item[key][i], before = i ? item[key][i - 1] : 0;
        const change = typeof now === "number" && typeof before === "number" ? now - before : 0;
        return make("td", { class: `n ${change > 0 ? "up" : change < 0 ? "fall" : ""}`, text: typeof now === "number" ? String(now) : "–" });
      });
      const flags = [...(step.valid ? [] : ["invalid"]), ...step.defects, ...(step.finished || step.defects.includes("cut_off") ? [] : ["cut off"])];
      const row = make("tr", { class: needle() && matches(step) ? "hit" : "", click: () => go(i + 1) }, make("td", { text: String(i + 1) }),
        make("td", { class: "what" }, step.action === "" ? make("small", { text: "(no action)" }) : step.action.slice(0, 160), " ", ...flags.map((text) => make("span", { class: "flag", text }))),
        ...cells, make("td", { class: "n", text: number(step.reward) }), make("td", { class: "n", text: number(step.advantage, 2) }));
      row.setAttribute("aria-current", String(i + 1 === t));
      return row;
    };
    return make("div", { class: "timeline scroll" }, make("table", {}, make("thead", {}, make("tr", {},
      ...[["Step", ""], ["Action", ""], ["Online", "n"], ["Retrospective", "n"], ["True", "n"], ["Reward", "n"], ["Advantage", "n"]].map(([text, kind]) => make("th", { text, class: kind, scope: "col" })))),
      make("tbody", {}, ...item.steps.map(line))));
  }

  function badges(item) {
    const row = make("div", { class: "tags" });
    const tag = (text, bad = false) => row.append(make("span", bad ? { class: "bad", text } : { text }));
    tag(where(item));
    if (state.choices.runs.length > 1) tag((state.choices.runs[item.run] || {}).label || "");
    tag(`score ${number(item.score)}`);
    tag(`return ${number(item.return)}`);
    tag(`${item.steps.length} steps${item.context_full ? ", conversation full" : item.truncated ? ", step limit reached" : ""}`);
    const worst = (value, text, bad = false) => value && value.points && row.append(make("button", { type: "button", class: bad ? "bad" : "",
      text: `${text} ${value.points} at step ${value.step}`, title: "Go to this step", click: () => go(value.step) }));
    worst(item.gap, "online–retrospective gap");
    worst(item.online_error, "online–true gap");
    worst(item.retrospective_error, "retrospective–true gap");
    if (item.outcome !== "won" && item.believed && item.believed.points >= 80) worst(item.believed, "claimed progress", true);
    if (item.invalid) tag(`${item.invalid} invalid actions`, true);
    if (item.malformed) tag(`${item.malformed} completions with a defect`, true);
    if (item.judged === "broken") tag("broken reflection", true);
    return row;
  }

  function group(item) {
    const entry = (row) => {
      const here = row.key === item.key, beside = row.key === state.beside;
      const text = row.source === item.source && row.run === item.run ? (row.rollout === null ? "" : `rollout ${row.rollout}`) : where(row) + runOf(row);
      const line = make("li", {}, make("button", { type: "button", class: "go", click: () => open(row.key, 1) }, spark(row),
        make("span", {}, outcome(row), ` ${row.length} steps`, make("small", { text }))),
        here ? null : make("button", { type: "button", class: "other", text: beside ? "close" : "beside",
          title: "Show the two beside each other", click: () => open(state.at, state.t, beside ? "" : row.key) }));
      line.setAttribute("aria-current", String(here));
      return line;
    };
    const parts = [make("h3", { text: `Rollouts of this task in ${item.source} (${item.group_size})` }), make("ul", { class: "group" }, ...item.group.map(entry))];
    if (item.elsewhere_size) parts.push(make("h3", {}, `The same task in other files (${item.elsewhere_size}) `, make("button", { type: "button", text: "list them all",
      click: () => { state.query = { task: item.task }; load().then(() => saveAddress(true)); } })), make("ul", { class: "group" }, ...item.elsewhere.map(entry)));
    return parts;
  }

  function column(item, width, first) {
    const t = Math.min(state.t, Math.max(1, item.steps.length)), step = item.steps[t - 1], last = t === item.steps.length;
    const button = (name, text, to, off) => { const node = make("button", { type: "button", "data-go": name, text, click: () => go(to) }); node.disabled = off; return node; };
    const top = make("div", {}, make("div", { class: "head" }, outcome(item), make("h2", { text: item.task }),
      first ? null : make("button", { type: "button", text: "close", click: () => open(state.at, state.t, "") })),
    make("p", { class: "goal", text: item.goal }), badges(item),
    item.error ? make("p", { class: "note", text: `Environment error: ${item.error}` }) : null);
    if (!step) return make("div", { class: "column" }, top, make("p", { class: "note", text: "The episode has no step." }), reflected(item, needle()));
    const pair = [
      make("div", {}, board(step.observation, item.board), block("Observation before the action", step.observation, "grid-text", needle()), block("Completion, as sampled", step.text, "", needle()),
        block("Action sent", step.action, "", needle()), tags(step)),
      make("div", {}, last && item.final ? board(item.final, item.board) : null, step.feedback ? block("Feedback", step.feedback, "grid-text", needle()) : null,
        last && item.final && item.final !== step.feedback ? block("Final observation", item.final, "grid-text", needle()) : null,
        make("h4", { text: "Rewards and progress of this step" }), numbers(item, t))];
    return make("div", { class: "column" }, top, make("div", {}, tracks(item, t, width, go), legend(item)),
      make("div", { class: "steps" }, button("first", "First", 1, t === 1), button("back", "← Back", t - 1, t === 1),
        make("output", { text: `step ${t} of ${item.steps.length}` }), button("next", "Next →", t + 1, last), button("last", "Last", item.steps.length, last)),
      timeline(item, t), make("div", { class: "pair" }, ...pair),
      step.prompt ? fold("prompt", make("details", {}, make("summary", { text: "Prompt of this step" }), make("pre", { text: step.prompt }))) : make("div"),
      fold("reflection", reflected(item, needle())));
  }
  const folds = { prompt: false, reflection: true };  // open or closed, kept from step to step
  function fold(name, node) {
    if (node.tagName === "DETAILS") { node.open = folds[name]; node.addEventListener("toggle", () => { folds[name] = node.open; }); }
    return node;
  }
  function show() {
    const { item, other } = state, detail = byId("detail");
    const inner = detail.clientWidth - 44, width = other ? (inner - 26) / 2 : inner;
    const table = detail.querySelector(".timeline"), top = table ? table.scrollTop : 0;
    detail.replaceChildren(other ? make("div", { class: "beside" }, column(item, width, true), column(other, width, false)) : column(item, width, true),
      ...group(item));
    for (const box of detail.querySelectorAll(".timeline")) {
      box.scrollTop = top;
      const current = box.querySelector('[aria-current="true"]');
      if (!current) continue;
      const low = current.offsetTop + current.offsetHeight - box.clientHeight;
      if (box.scrollTop < low) box.scrollTop = low + 4;
      else if (box.scrollTop > current.offsetTop - 30) box.scrollTop = current.offsetTop - 30;
    }
    document.title = `${item.outcome} ${item.task} · RePro episodes`;
  }

  // Input ------------------------------------------------------------------------------------------
  for (const key of ["outcome", "source", "run", "trouble"]) byId(`f-${key}`).addEventListener("change", (event) => set({ [key]: event.target.value }));
  byId("f-kind").addEventListener("change", (event) => set({ kind: event.target.value === ALL ? undefined : event.target.value }));
  byId("f-sort").addEventListener("change", (event) => set({ sort: event.target.value, down: UP_FIRST.has(event.target.value) ? "" : "1" }));
  let typing = 0;
  for (const key of ["text", "believed", "gap"]) byId(`f-${key}`).addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => { if (event.target.validity.valid) set({ [key]: event.target.value.trim() }); }, 250);
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("down").addEventListener("click", () => set({ down: state.query.down ? "" : "1" }));
  byId("reset").addEventListener("click", () => { state.query = {}; state.beside = ""; load().then(() => saveAddress(true)); });
  byId("previous-page").addEventListener("click", () => load({ offset: Math.max(0, state.offset - state.data.page), pick: "first" }));
  byId("next-page").addEventListener("click", () => load({ offset: state.offset + state.data.page, pick: "first" }));
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.isComposing) return;
    if (event.key === "Escape") { document.activeElement.blur(); byId("episodes").focus(); return; }
    if (event.target.closest("input, select, textarea")) return;
    const act = { j: () => next(1), k: () => next(-1), ArrowRight: () => go(state.t + 1), ArrowLeft: () => go(state.t - 1),
      "/": () => { byId("f-text").focus(); byId("f-text").select(); } }[event.key];
    if (act) { act(); event.preventDefault(); }
  });
  window.addEventListener("hashchange", () => { if (address() !== location.hash) readAddress(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !timer) load({ quiet: true }); });
  let waiting = 0;
  window.addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => state.item && show()); });
  readAddress();
})();
