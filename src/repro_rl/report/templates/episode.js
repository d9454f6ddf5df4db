// One episode as DOM nodes: shared by the report's viewer and `repro-rl view`.
// Text from a run is written as text, never as markup. Colours are classes, as a strict
// Content-Security-Policy forbids inline styles.
const Episode = (() => {
  "use strict";
  const SERIES = [["online", "online (while acting)"], ["retrospective", "retrospective"], ["truth", "true"]];

  function make(tag, props = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (key === "text") node.textContent = value;
      else if (key === "click") node.addEventListener("click", value);
      else node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
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

  // The text with every occurrence of `needle` marked, in any case.
  function marked(text, needle) {
    const parts = [], low = text.toLowerCase();
    let from = 0;
    if (needle && low.length === text.length)  // a few letters change length with their case
      for (let at = low.indexOf(needle); at >= 0 && parts.length < 400; at = low.indexOf(needle, from)) {
        parts.push(text.slice(from, at), make("mark", { text: text.slice(at, at + needle.length) }));
        from = at + needle.length;
      }
    return [...parts, text.slice(from)];
  }
  function pre(text, className = "", needle = "") {
    return make("pre", { class: className }, ...(text === "" ? ["(empty)"] : marked(text, needle)));
  }
  function block(title, text, className = "", needle = "") {
    return make("div", {}, make("h4", { text: title }), pre(text, className, needle));
  }
  function table(rows) {
    const body = make("tbody");
    for (const [name, value] of rows)
      body.append(make("tr", {}, make("td", { text: name }), make("td", { class: "n", text: value })));
    return make("div", { class: "scroll" }, make("table", {}, body));
  }
  function tags(step) {
    const row = make("div", { class: "tags" });
    row.append(make("span", step.valid ? { text: "valid action" } : { class: "bad", text: "invalid action" }));
    if (!step.finished) row.append(make("span", { class: "bad", text: "cut off by the length limit" }));
    for (const defect of step.defects) row.append(make("span", { class: "bad", text: `defect: ${defect}` }));
    return row;
  }
  function numbers(item, t) {
    const step = item.steps[t - 1];
    const rows = [["environment reward", number(step.reward)]];
    for (const [name, value] of Object.entries(step.terms)) rows.push([`term: ${name}`, number(value)]);
    rows.push(["advantage", number(step.advantage)]);
    if (typeof step.entropy === "number") rows.push(["entropy, nats per token", number(step.entropy)]);
    if (typeof step.tokens === "number") rows.push(["sampled tokens", number(step.tokens)]);
    for (const [key, name] of SERIES) {
      const now = item[key][t - 1], before = t > 1 ? item[key][t - 2] : 0;
      const complete = typeof now === "number" && typeof before === "number";
      const gain = complete ? ` (${now >= before ? "+" : "−"}${Math.abs(now - before)})` : "";
      rows.push([`progress, ${name}`, percent(now) + gain]);
    }
    return table(rows);
  }

  // A Sokoban observation as rows of cells (wall, floor, target, box, done, player, on), or null for another text.
  // Styles: grid ("# _ O X P √ S"), coordinates ("Player: (1, 2)"), relative ("at:1,2 box:+1,+0 goal:-1,+2").
  function cells(text, size) {
    const lines = text.replace(/^Nothing happened\.\n/, "").split("\n");
    if (lines.length > 2 && lines.every((line) => /^[#_OXPS√]( [#_OXPS√])*$/.test(line)))
      return lines.map((line) => line.split(" ").map((sign) => ({ "#": "wall", _: "floor", O: "target", X: "box", "√": "done", P: "player", S: "on" })[sign]));
    const found = placed(text);
    if (!found) return null;
    const all = [found.player, ...found.boxes, ...found.targets, ...found.walls];
    const rows = found.size ? found.size[0] : size ? size[0] : Math.max(...all.map(([r]) => r)) + 2;
    const cols = found.size ? found.size[1] : size ? size[1] : Math.max(...all.map(([, c]) => c)) + 2;
    if (!(rows > 2 && cols > 2 && rows <= 40 && cols <= 40) || all.some(([r, c]) => r < 0 || c < 0 || r >= rows || c >= cols)) return null;
    const has = (list, r, c) => list.some(([y, x]) => y === r && x === c);
    return Array.from({ length: rows }, (_, r) => Array.from({ length: cols }, (_, c) => {
      const target = has(found.targets, r, c);
      if (has([found.player], r, c)) return target ? "on" : "player";
      if (has(found.boxes, r, c)) return target ? "done" : "box";
      if (target) return "target";
      return r === 0 || c === 0 || r === rows - 1 || c === cols - 1 || has(found.walls, r, c) ? "wall" : "floor";
    }));
  }
  function placed(text) {
    const pairs = (part) => [...part.matchAll(/\((\d+), (\d+)\)/g)].map((m) => [Number(m[1]), Number(m[2])]);
    const line = (name) => (new RegExp(`^${name}: (.*)$`, "m").exec(text) || ["", ""])[1];
    const room = /The room has (\d+) rows and (\d+) columns/.exec(text);
    if (room && pairs(line("Player")).length === 1)
      return { size: [Number(room[1]), Number(room[2])], player: pairs(line("Player"))[0], boxes: pairs(line("Boxes")), targets: pairs(line("Targets")), walls: pairs(line("Inner walls")) };
    const at = /(?:^|\s)at:(\d+),(\d+)(?=\s|$)/.exec(text);
    if (!at) return null;
    const player = [Number(at[1]), Number(at[2])], boxes = [], targets = [], walls = [];
    for (const [, kind, r, c] of text.matchAll(/(?:^|\s)(box|goal|wall):([+-]\d+),([+-]\d+)(?=\s|$)/g)) {
      const from = kind === "goal" ? boxes[boxes.length - 1] : player;  // a target is given relative to its box
      if (!from) return null;
      ({ box: boxes, goal: targets, wall: walls })[kind].push([from[0] + Number(r), from[1] + Number(c)]);
    }
    return boxes.length ? { player, boxes, targets, walls } : null;
  }
  const SIGNS = { wall: "", floor: "", target: "·", box: "■", done: "■", player: "@", on: "@" };
  function board(text, size) {
    const rows = cells(text, size);
    if (!rows) return null;
    const body = make("tbody");
    for (const row of rows) body.append(make("tr", {}, ...row.map((kind) => make("td", { class: kind, title: kind === "done" ? "box on a target" : kind === "on" ? "player on a target" : kind, text: SIGNS[kind] }))));
    return make("table", { class: "board", role: "img", "aria-label": "The board" }, body);
  }

  // A series from P_0 = 0 as a path; a missing value breaks the line. A value between two breaks is a short
  // dash: a line needs two points, and one alone would not be seen.
  function outline(values, x, y) {
    let path = "", open = false;
    [values.some((v) => v !== null) ? 0 : null, ...values].forEach((value, t, all) => {
      if (value === null) { open = false; return; }
      const alone = t > 0 && !open && (all[t + 1] ?? null) === null;
      path += alone ? `M${x(t)} ${y(value)}m-2 0h4` : `${open ? "L" : "M"}${x(t)} ${y(value)}`;
      open = true;
    });
    return path;
  }
  function tracks(item, at, available, go) {
    const width = Math.max(280, available), height = 220;
    const left = 44, right = 14, top = 12, bottom = 40;
    const count = item.online.length;
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
    svg.append(draw("line", { class: "now", x1: x(at), x2: x(at), y1: top, y2: height - bottom }));
    for (const [key] of SERIES) {
      const path = outline(item[key], x, y);
      if (path) svg.append(draw("path", { d: path, class: `of-${key} stroke` }));
      item[key].forEach((value, i) => {
        if (value !== null) svg.append(draw("circle", { cx: x(i + 1), cy: y(value), r: i + 1 === at ? 5 : 2.6, class: `of-${key} dot` }));
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
    for (const [key, name] of SERIES) {
      const swatch = draw("svg", { viewBox: "0 0 30 8", "aria-hidden": "true" });
      swatch.append(draw("line", { x1: 1, x2: 29, y1: 4, y2: 4, class: `of-${key} stroke` }));
      const absent = item[key].every((value) => value === null) ? ": not given" : "";
      list.append(make("li", {}, swatch, make("span", { text: name + absent })));
    }
    return list;
  }
  function reflected(item, needle = "") {
    const part = item.reflection;
    if (!part) return make("p", { class: "basis", text: "No reflection was recorded for this episode." });
    const row = make("div", { class: "tags" });
    row.append(make("span", part.usable ? { text: "valid reflection" } : { class: "bad", text: "no usable values" }));
    if (part.finished === false) row.append(make("span", { class: "bad", text: "cut off by the length limit" }));
    for (const defect of part.defects) row.append(make("span", { class: "bad", text: `defect: ${defect}` }));
    const rows = Object.entries(part.terms).map(([name, value]) => [`term: ${name}`, number(value)]);
    rows.push(["advantage", number(part.advantage)]);
    return make("details", {}, make("summary", { text: "Reflection on the whole episode" }), row,
      part.prompt === undefined ? null : block("Prompt", part.prompt),
      part.prompt === undefined ? pre(part.text) : block("Completion, as sampled", part.text, "", needle), table(rows));
  }
  return { SERIES, board, make, draw, number, percent, marked, pre, block, table, tags, numbers, outline, tracks, legend, reflected };
})();
