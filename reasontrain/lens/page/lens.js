"use strict";
// Shows recorded rollouts. All text enters the page as text nodes. Rollouts come from scripts in data/, loaded when they are looked at:
// each is one call of `lens`. Only what is visible is in the document: rows of the list by position, tokens by block.
(() => {
  const RUNS = JSON.parse(document.getElementById("data").textContent).runs;
  const LISTED = ["id", "problem", "snippet", "reward", "advantage", "correct", "group", "dropped", "truncated", "tokens", "kept", "quadrants", "chunk"];
  const TONES = ["a", "b", "c", "d", "e", "f"], BLOCK = 250, CACHED = 24, RESPONSE = 2, SOFT = 5;
  const by = (id) => document.getElementById(id);
  const state = { run: 0, at: 0, step: null, visible: [], chosen: null, rules: null, colour: null, token: -1, query: "" };
  const ROW = parseFloat(getComputedStyle(document.body).getPropertyValue("--row")) * parseFloat(getComputedStyle(document.documentElement).fontSize);
  let shown = null; // the rollout on display, decoded
  let search = 0; // counts searches, so that an older one stops

  // --- loading
  const waiting = new Map(), cache = new Map();
  globalThis.lens = (kind, key, value) => {
    const answer = waiting.get(key);
    waiting.delete(key);
    answer?.(value);
  };
  const load = (name) => {
    if (!cache.has(name)) {
      cache.set(name, new Promise((resolve, reject) => {
        waiting.set(name, (value) => {
          resolve(value);
          const oldest = cache.keys().next().value;
          if (cache.size > CACHED && !waiting.has(oldest)) cache.delete(oldest);
        });
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onload = () => script.remove();
        script.onerror = () => { cache.delete(name); reject(new Error(`${script.src} is missing; write the lens again`)); };
        document.head.append(script);
      }));
    }
    return cache.get(name);
  };
  const numbers = (text, size) => {
    if (text === null || text === undefined) return null;
    if (text[0] !== "~") return Float32Array.from(text, Number);
    const bytes = Uint8Array.from(atob(text.slice(1)), (c) => c.charCodeAt(0));
    return new Float32Array(bytes.buffer, 0, size);
  };
  const digits = (text, size) => (text === null ? null : text.length === 1 ? new Uint8Array(size).fill(Number(text)) : Uint8Array.from(text, Number));
  const decode = (chunk, index) => {
    const [prompt, answer, parts, tokens, kinds, rules, evidence, quadrants] = chunk.rollouts[index];
    const size = tokens.length;
    return {
      prompt, answer, parts, size, texts: tokens.map((t) => chunk.texts[t]), kinds: digits(kinds, size),
      rules: rules.map((r) => numbers(r, size)), evidence: evidence.map((e) => numbers(e, size)), quadrants: digits(quadrants, size),
    };
  };

  // --- text
  const element = (tag, css, text) => { const e = document.createElement(tag); if (css) e.className = css; if (text !== undefined) e.textContent = text; return e; };
  const number = (value) => {
    if (typeof value !== "number" || !Number.isFinite(value)) return value === null || value === undefined ? "none" : String(value).replace("-", "−");
    const size = Math.abs(value);
    const text = size >= 1e6 || (size && size < 1e-4) ? value.toExponential(1) : Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 6 });
    return text.replace("-", "−");
  };
  const percent = (share, places = 0) => (Number.isFinite(share) ? `${(100 * share).toFixed(places)}\u202f%` : "–");
  // characters that draw nothing, or turn the direction of what follows, are shown by their numbers
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
  const visible = (text) => text.replace(HIDDEN, (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  const drawn = (text) => (text === "" ? "∅" : visible(text).replaceAll("\t", "→\t").replaceAll("\n", "⏎\n"));

  // --- the list
  const list = by("list"), rows = by("rows");
  const rowElement = (place) => {
    const row = state.step.rollouts[state.visible[place]];
    const option = element("div", "row");
    option.id = `row${place}`;
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", String(state.visible[place] === state.chosen));
    option.setAttribute("aria-setsize", String(state.visible.length));
    option.setAttribute("aria-posinset", String(place + 1));
    option.style.top = `${place * ROW}px`;
    const line = element("div");
    if (row.correct !== null) line.append(element("b", row.correct ? "right" : "wrong", row.correct ? "right" : "wrong"));
    if (row.dropped) line.append(element("b", "", "dropped"));
    if (row.reward !== null) line.append(element("span", "", `reward ${number(row.reward)}`));
    if (row.advantage !== null && row.advantage !== 0) line.append(element("span", "", `adv. ${number(row.advantage)}`));
    if (row.truncated) line.append(element("span", "", "cut off"));
    const second = element("div");
    second.append(element("span", "snippet", visible(row.snippet) || "no prompt"), element("span", "end", `${row.tokens} tok · ${percent(row.kept[0] / row.tokens)}`));
    option.append(line, second);
    option.place = place;
    return option;
  };
  const drawList = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(state.visible.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    const part = document.createDocumentFragment();
    for (let place = first; place < last; place++) part.append(rowElement(place));
    rows.style.height = `${state.visible.length * ROW}px`;
    rows.replaceChildren(part);
    const place = state.visible.indexOf(state.chosen);
    if (place >= first && place < last) list.setAttribute("aria-activedescendant", `row${place}`);
    else list.removeAttribute("aria-activedescendant");
  };
  let asked = false;
  list.addEventListener("scroll", () => {
    if (!asked) requestAnimationFrame(() => { asked = false; drawList(); });
    asked = true;
  }, { passive: true });
  new ResizeObserver(() => state.step && drawList()).observe(list);
  const bring = (place) => {
    if (place * ROW < list.scrollTop) list.scrollTop = place * ROW;
    else if ((place + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (place + 1) * ROW - list.clientHeight;
  };

  // --- filters
  const FILTERS = ["search", "verdict", "dropped", "group", "quadrant", "order"];
  const passes = (row) => {
    const verdict = by("verdict").value, dropped = by("dropped").value, group = by("group").value, quadrant = by("quadrant").value;
    if (verdict === "cut" ? !row.truncated : verdict && row.correct !== (verdict === "right")) return false;
    if (dropped && row.dropped !== (dropped === "dropped")) return false;
    if (group !== "" && row.group !== Number(group)) return false;
    return !quadrant || !state.step.quadrants || row.quadrants[quadrant - 1] > 0;
  };
  const ORDERS = {
    reward: (r) => (Number.isFinite(r.reward) ? r.reward : Infinity), advantage: (r) => -Math.abs(Number.isFinite(r.advantage) ? r.advantage : 0), length: (r) => -r.tokens,
    kept: (r) => -r.kept[0] / Math.max(r.tokens, 1),
    quadrant: (r) => -(r.quadrants[(by("quadrant").value || 3) - 1] ?? 0) / Math.max(r.tokens, 1),
  };
  const texts = async (step, still) => {
    step.texts ??= new Array(step.rollouts.length);
    for (let c = 0; c < step.chunks.length; c++) {
      const [start, stop] = step.chunks[c];
      if (step.texts[start] !== undefined) continue;
      by("count").textContent = `searching, ${percent(start / step.rollouts.length)}`;
      const chunk = await load(`${step.key}-${c}`);
      for (let i = start; i < stop; i++) {
        const [prompt, answer, , tokens] = chunk.rollouts[i - start], row = step.rollouts[i];
        step.texts[i] = [row.id, row.problem, prompt, answer, tokens.map((t) => chunk.texts[t]).join("")].join("\n").toLowerCase();
      }
      if (!still()) return false;
    }
    return true;
  };
  const filter = async () => {
    const step = state.step, mine = ++search, query = by("search").value.trim().toLowerCase();
    state.query = query;
    if (query && !(await texts(step, () => mine === search))) return;
    if (mine !== search) return;
    const found = [];
    step.rollouts.forEach((row, i) => { if (passes(row) && (!query || step.texts[i].includes(query))) found.push(i); });
    const order = ORDERS[by("order").value];
    if (order) found.sort((x, y) => order(step.rollouts[x]) - order(step.rollouts[y]) || x - y);
    state.visible = found;
    by("count").textContent = found.length === step.rollouts.length ? `${found.length} rollouts` : `${found.length} of ${step.rollouts.length} rollouts`;
    by("reset").hidden = !FILTERS.some((id) => by(id).value);
    list.scrollTop = 0;
    if (!found.includes(state.chosen)) choose(found[0] ?? null);
    else { bring(found.indexOf(state.chosen)); drawList(); if (shown) drawTexts(); }
  };
  let typing = 0;
  by("filters").addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(filter, event.target.id === "search" ? 160 : 0);
  });
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("looks").addEventListener("submit", (event) => event.preventDefault());
  by("reset").addEventListener("click", () => { for (const id of FILTERS) by(id).value = ""; filter(); });

  // --- a rollout
  const choose = async (index) => {
    state.chosen = index;
    state.token = -1;
    if (index !== null) bring(state.visible.indexOf(index));
    drawList();
    const step = state.step;
    if (index === null) { shown = null; drawRollout(); return; }
    const row = step.rollouts[index];
    const chunk = await load(`${step.key}-${row.chunk}`);
    if (step !== state.step || index !== state.chosen) return;
    shown = { row, ...decode(chunk, index - step.chunks[row.chunk][0]) };
    drawRollout();
    try { history.replaceState(null, "", `#run=${state.run}&step=${RUNS[state.run].steps[state.at].step}&rollout=${row.id}`); } catch { /* some browsers refuse it for files */ }
  };
  const fact = (name, value) => {
    const part = element("div");
    const text = element("dd");
    text.append(value instanceof Node ? value : visible(String(value)));
    part.append(text, element("dt", "", name));
    return part;
  };
  const drawRollout = () => {
    by("about").textContent = shown ? `Rollout ${shown.row.id} · ${visible(shown.row.problem)}` : "No rollout";
    const facts = [];
    if (shown) {
      const { row } = shown;
      if (row.correct !== null) facts.push(fact("answer", element("span", row.correct ? "right" : "wrong", row.correct ? "right" : "wrong")));
      if (shown.answer) facts.push(fact("gold answer", shown.answer.length > 120 ? `${shown.answer.slice(0, 120)}…` : shown.answer));
      facts.push(fact("reward", number(row.reward)), fact("advantage", number(row.advantage)));
      for (const [name, value] of shown.parts) facts.push(fact(visible(name), number(value)));
      if (row.group !== null) {
        const only = element("button", "", String(row.group));
        only.type = "button";
        only.title = "show this group only";
        only.addEventListener("click", () => { by("group").value = row.group; filter(); });
        facts.push(fact("group", only));
      }
      facts.push(fact("response tokens", row.tokens.toLocaleString("en")));
      if (row.dropped) facts.push(fact("by the filter", "dropped"));
      if (row.truncated) facts.push(fact("at the token limit", "cut off"));
    }
    by("facts").replaceChildren(...facts);
    by("prompt").textContent = shown ? visible(shown.prompt) : "";
    by("prompt-box").hidden = !shown;
    drawRules();
    drawKey();
    drawTexts();
  };

  // --- rules
  const tone = (rule) => TONES[rule % TONES.length];
  const lanes = () => [...state.rules].filter((r) => r < state.step.rules.length && state.step.rules[r].reason === "").sort((x, y) => x - y).slice(0, TONES.length);
  const cell = (text, css = "num") => element("td", css, text);
  const drawRules = () => {
    const step = state.step;
    const names = [...new Set(step.rules.flatMap((r) => Object.keys(r.evidence)))];
    const head = element("tr");
    for (const [text, css] of [["rule", ""], ["kept in step", "num"], ["kept here", "num"], ["overlap with training", "num"], ...names.map((n) => [`share of ${n}`, "num"])]) {
      const th = element("th", css, text);
      th.scope = "col";
      head.append(th);
    }
    by("rules-head").replaceChildren(head);
    by("rules").replaceChildren(...step.rules.map((rule, r) => {
      const line = element("tr"), name = element("th"), label = element("label"), box = element("input");
      name.scope = "row";
      box.type = "checkbox";
      box.checked = lanes().includes(r);
      box.disabled = rule.reason !== "";
      box.addEventListener("change", () => {
        if (box.checked) state.rules.add(r); else state.rules.delete(r);
        if (lanes().length !== state.rules.size) state.rules = new Set(lanes());
        drawRules(); drawKey(); drawTexts();
        by("rules").querySelectorAll("input")[r].focus();
      });
      label.append(box, element("i", `swatch ${tone(r)}`), visible(rule.name));
      name.append(label);
      line.append(name);
      if (rule.reason) { const why = cell(visible(rule.reason), "why"); why.colSpan = 3 + names.length; line.append(why); return line; }
      line.append(cell(percent(rule.kept, 1)), cell(shown ? `${shown.row.kept[r]} of ${shown.row.tokens}` : ""), cell(r ? percent(rule.overlap, 1) : "–"));
      for (const n of names) line.append(cell(n in rule.evidence ? percent(rule.evidence[n], 1) : "–"));
      return line;
    }));
  };

  // --- colours
  const scales = () => RUNS[state.run].scales.filter((s) => state.step.names.includes(s.name));
  const colours = () => {
    const all = scales().map((s) => [s.name, s.unit ? `${s.label}, ${s.unit}` : s.label]);
    const both = ["kl_reverse", "kl_forward"].find((n) => state.step.names.includes(n));
    if (state.step.names.includes("entropy") && both) all.unshift([`both:${both}`, "entropy and divergence"]);
    return [...all, ...state.step.rules.map((r, i) => [`rule:${i}`, `weight, ${r.name}`]).filter((_, i) => !state.step.rules[i].reason), ["none", "none"]];
  };
  const level = (scale, value) => { const v = scale.sign * value; let l = 0; while (l < scale.edges.length && v >= scale.edges[l]) l++; return l; };
  // a function from a token to its CSS class
  const painter = () => {
    const values = (name) => shown.evidence[state.step.names.indexOf(name)] ?? null;
    const scale = (name) => RUNS[state.run].scales.find((s) => s.name === name);
    const [kind, name] = state.colour.split(":");
    if (kind === "none") return () => "";
    if (kind === "both") {
      const x = values("entropy"), y = values(name), sx = scale("entropy"), sy = scale(name);
      if (!x || !y) return () => "";
      return (i) => (Number.isNaN(x[i]) || Number.isNaN(y[i]) ? "cx" : `c${level(sx, x[i])}${level(sy, y[i])}`);
    }
    if (kind === "rule") {
      const w = shown.rules[name];
      const most = w ? w.reduce((x, y) => Math.max(x, y), 0) || 1 : 1;
      return (i) => (w ? `c${Math.ceil((4 * w[i]) / most)}0` : "");
    }
    const v = values(state.colour), s = scale(state.colour);
    const far = state.colour.startsWith("kl_") || state.colour === "disagreement";
    return (i) => (!v ? "" : Number.isNaN(v[i]) ? "cx" : far ? `c0${level(s, v[i])}` : `c${level(s, v[i])}0`);
  };
  const drawColours = () => {
    const all = colours();
    if (!all.some(([value]) => value === state.colour)) state.colour = all[0][0];
    by("colour").replaceChildren(...all.map(([value, text]) => { const option = element("option", "", visible(text)); option.value = value; return option; }));
    by("colour").value = state.colour;
  };
  const patch = (css, text) => { const part = element("span"); part.append(element("i", css), text); return part; };
  const drawKey = () => {
    const parts = [], [kind, name] = state.colour.split(":");
    const edges = (s, css) => {
      const sign = s.sign < 0 ? "≤ −" : "≥ ";
      parts.push(element("b", "", s.label), ...s.edges.map((edge, i) => patch(css(i + 1), `${sign}${number(edge)}`)));
    };
    const scale = (n) => RUNS[state.run].scales.find((s) => s.name === n);
    if (kind === "both") { edges(scale("entropy"), (l) => `c${l}0`); edges(scale(name), (l) => `c0${l}`); parts.push(patch("c44", "both")); }
    else if (kind === "rule") parts.push(...[1, 2, 3, 4].map((l) => patch(`c${l}0`, `≤ ${percent(l / 4)} of the largest weight`)));
    else if (kind !== "none") edges(scale(state.colour), (l) => (state.colour.startsWith("kl_") || state.colour === "disagreement" ? `c0${l}` : `c${l}0`));
    by("key").replaceChildren(...parts);
  };

  // --- texts
  const differs = (i, rules) => rules.some((r) => (shown.rules[r][i] !== 0) !== (shown.rules[rules[0]][i] !== 0));
  const hits = () => {
    const marked = new Uint8Array(shown.size);
    if (!state.query) return marked;
    const starts = [0];
    for (const text of shown.texts) starts.push(starts.at(-1) + text.length);
    const whole = shown.texts.join("").toLowerCase();
    if (whole.length !== starts.at(-1)) return marked; // lower case changed a length
    let token = 0;
    for (let at = whole.indexOf(state.query); at >= 0; at = whole.indexOf(state.query, at + 1)) {
      while (starts[token + 1] <= at) token++;
      for (let t = token; t < shown.size && starts[t] < at + state.query.length; t++) marked[t] = 1;
    }
    return marked;
  };
  let fills = null;
  const drawTexts = () => {
    fills?.disconnect();
    const part = document.createDocumentFragment();
    if (shown) {
      const rules = lanes(), columns = by("layout").value === "columns" && rules.length > 1 ? rules.map((r) => [r]) : [rules];
      const paint = painter(), marked = hits(), only = by("differ").checked && rules.length > 1, quadrant = Number(by("quadrant").value);
      fills = new IntersectionObserver((entries) => { for (const e of entries) if (e.isIntersecting) { fills.unobserve(e.target); e.target.fill(); } }, { rootMargin: "800px" });
      for (const column of columns) {
        const box = element("div");
        if (columns.length > 1) { const title = element("h3"); title.append(element("i", `swatch ${tone(column[0])}`), ` ${visible(state.step.rules[column[0]].name)}`); box.append(title); }
        box.append(drawText(column, { rules, paint, marked, only, quadrant, apart: columns.length > 1 }));
        part.append(box);
      }
      by("texts").className = columns.length > 1 ? "columns" : "";
    }
    by("texts").replaceChildren(part);
    mark(state.token);
  };
  const drawText = (column, { rules, paint, marked, only, quadrant, apart }) => {
    const text = element("div", "text");
    text.tabIndex = 0;
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", `Tokens of rollout ${shown.row.id}${apart ? `, ${state.step.rules[column[0]].name}` : ""}; arrow keys read their numbers`);
    text.style.setProperty("--lanes", String(Math.max(column.length, 1)));
    const largest = column.map((r) => shown.rules[r].reduce((x, y) => Math.max(x, y), 0) || 1);
    const current = shown;
    const token = (i) => {
      const own = current.kinds[i] === RESPONSE || current.kinds[i] === SOFT;
      const rest = own && ((only && !differs(i, rules)) || (quadrant && current.quadrants && current.quadrants[i] !== quadrant) || (apart && current.rules[column[0]][i] === 0));
      const span = element("span", `tok ${own ? (rest ? "rest" : paint(i)) : "cf"}${marked[i] ? " hit" : ""}`, drawn(current.texts[i]));
      if (own) column.forEach((r, lane) => {
        const weight = current.rules[r][i];
        if (weight !== 0) span.style.setProperty(`--l${lane}`, weight >= largest[lane] ? `var(--${tone(r)})` : `color-mix(in srgb, var(--${tone(r)}) ${Math.max(15, Math.round((100 * weight) / largest[lane]))}%, transparent)`);
      });
      span.token = i;
      return span;
    };
    let start = 0;
    while (start < current.size) {
      let stop = Math.min(start + BLOCK, current.size); // a block ends with a line, if one ends soon
      while (stop < current.size && stop < start + 2 * BLOCK && !current.texts[stop - 1].includes("\n")) stop++;
      const block = element("div", "block"), [from, to] = [start, stop];
      block.from = from; block.to = to;
      block.style.minHeight = block.style.containIntrinsicHeight = "";
      block.fill = () => {
        if (block.filled) return;
        block.filled = true;
        block.style.height = "";
        const part = document.createDocumentFragment();
        for (let i = from; i < to; i++) part.append(token(i));
        // the line end of a block is the block's own end
        if (to < current.size && current.texts[to - 1].endsWith("\n")) part.lastChild.textContent = part.lastChild.textContent.slice(0, -1);
        block.append(part);
        if (state.token >= from && state.token < to) mark(state.token);
      };
      text.append(block);
      if (start === 0) block.fill(); else { block.style.height = `${Math.ceil((to - from) / 12) * 1.7}rem`; fills.observe(block); }
      start = stop;
    }
    return text;
  };
  const spans = (i) => {
    const found = [];
    for (const block of document.querySelectorAll("#texts .block")) if (i >= block.from && i < block.to) { block.fill(); found.push(block.children[i - block.from]); }
    return found;
  };
  const mark = (i) => {
    for (const span of document.querySelectorAll("#texts .on")) span.classList.remove("on");
    state.token = i;
    if (!shown || i < 0 || i >= shown.size) { by("readout").textContent = "Point at a token, or focus a text and use the arrow keys, to read its numbers."; return; }
    for (const span of spans(i)) span.classList.add("on");
    const own = shown.kinds[i] === RESPONSE || shown.kinds[i] === SOFT;
    const parts = [`“${visible(shown.texts[i]).replaceAll("\n", "⏎")}” ${i + 1} of ${shown.size}`];
    if (!own) parts.push("not trained on");
    else {
      if (shown.kinds[i] === SOFT) parts.push("most likely token of a soft step");
      if (shown.quadrants?.[i]) parts.push(`Q${shown.quadrants[i]}`);
      state.step.names.forEach((name, n) => { if (shown.evidence[n]) parts.push(`${visible(name)} ${number(shown.evidence[n][i])}`); });
      parts.push(...lanes().map((r) => `${visible(state.step.rules[r].name)}: ${number(shown.rules[r][i])}`));
    }
    by("readout").textContent = parts.join("  ·  ");
  };
  const go = (i) => {
    const box = document.activeElement.classList.contains("text") ? document.activeElement : null;
    mark(Math.max(0, Math.min(shown.size - 1, i)));
    (spans(state.token).find((s) => box?.contains(s)) ?? spans(state.token)[0])?.scrollIntoView({ block: "nearest" });
  };
  const next = (by_) => {
    const rules = lanes();
    for (let i = state.token + by_; i >= 0 && i < shown.size; i += by_)
      if (rules.length > 1 ? differs(i, rules) : rules.length && shown.rules[rules[0]][i] !== 0) { go(i); return; }
  };
  const point = (event) => { const i = event.target.closest?.(".tok")?.token; if (i !== undefined && i !== state.token) mark(i); };
  by("texts").addEventListener("pointerover", point);
  by("texts").addEventListener("pointerdown", point);

  // --- steps and runs
  const openStep = async (at, wanted) => {
    const run = RUNS[state.run];
    state.at = at;
    by("step").value = at;
    const name = `step ${run.steps[at].step} (${at + 1} of ${run.steps.length})`;
    by("step-name").textContent = name;
    by("step").setAttribute("aria-valuetext", name);
    const key = `${run.key}-step${run.steps[at].step}`;
    const content = await load(key);
    if (state.at !== at || run !== RUNS[state.run]) return;
    const place = Math.max(0, state.visible.indexOf(state.chosen));
    if (!content.key) { // rows become objects once
      content.key = key;
      content.rollouts = content.rollouts.map((row) => Object.fromEntries(LISTED.map((n, i) => [n, row[i]])));
    }
    state.step = content;
    shown = null; // it is of another step
    // the recorded weights, and two rules that keep other tokens
    state.rules ??= new Set([0, ...content.rules.map((_, r) => r).filter((r) => r && !content.rules[r].reason && content.rules[r].overlap < 1).slice(0, 2)]);
    by("quadrant").disabled = !content.quadrants;
    drawColours();
    state.chosen = wanted === undefined ? null : content.rollouts.findIndex((r) => r.id === wanted);
    if (state.chosen === -1) state.chosen = null;
    const before = state.chosen;
    await filter(before === null ? place : undefined);
    if (before !== null) choose(before);
    else if (place && state.visible.length) choose(state.visible[Math.min(place, state.visible.length - 1)]);
  };
  const openRun = (index, step, rollout) => {
    const run = RUNS[index];
    state.run = index;
    state.rules = null;
    by("run").value = index;
    by("name").textContent = visible(run.name);
    by("step").max = run.steps.length - 1;
    by("step").disabled = run.steps.length < 2;
    by("notes").replaceChildren(...run.notes.map((note) => element("p", "note", visible(note))));
    const at = run.steps.findIndex((s) => s.step === step);
    return openStep(at < 0 ? run.steps.length - 1 : at, rollout);
  };
  by("runs").hidden = RUNS.length < 2;
  by("run").append(...RUNS.map((run, i) => { const option = element("option", "", visible(run.name)); option.value = i; return option; }));
  by("run").addEventListener("change", () => openRun(Number(by("run").value)));
  by("step").addEventListener("input", () => openStep(Number(by("step").value)));
  by("colour").addEventListener("change", () => { state.colour = by("colour").value; drawKey(); drawTexts(); });
  by("layout").addEventListener("change", drawTexts);
  by("differ").addEventListener("change", drawTexts);

  // --- mouse and keys
  list.addEventListener("click", (event) => { const place = event.target.closest(".row")?.place; if (place !== undefined) choose(state.visible[place]); });
  const turn = (by_) => {
    if (!state.visible.length) return;
    const place = state.visible.indexOf(state.chosen);
    choose(state.visible[Math.max(0, Math.min(state.visible.length - 1, place + by_))]);
  };
  const slide = (by_) => { const at = state.at + by_; if (at >= 0 && at < RUNS[state.run].steps.length) openStep(at); };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const focus = event.target, key = event.key;
    if (key === "Escape" && focus.id === "search") { focus.blur(); list.focus(); return; }
    if (focus.matches("input:not([type=checkbox]), select")) return;
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const keys = { j: () => turn(1), k: () => turn(-1), "[": () => slide(-1), "]": () => slide(1), "/": () => by("search").focus(), d: () => by("differ").click(), e: () => {
      const all = colours().map(([value]) => value);
      state.colour = all[(all.indexOf(state.colour) + 1) % all.length];
      by("colour").value = state.colour;
      drawKey(); drawTexts();
    } };
    if (focus === list) Object.assign(keys, { ArrowDown: () => turn(1), ArrowUp: () => turn(-1), PageDown: () => turn(page), PageUp: () => turn(-page), Home: () => turn(-1e9), End: () => turn(1e9) });
    if (shown) Object.assign(keys, { n: () => next(1), p: () => next(-1) });
    if (shown && focus.classList.contains("text")) Object.assign(keys, { ArrowRight: () => go(state.token + 1), ArrowLeft: () => go(state.token - 1), ArrowDown: () => go(state.token + 10), ArrowUp: () => go(state.token - 10), Home: () => go(0), End: () => go(shown.size - 1), Escape: () => mark(-1) });
    if (keys[key]) { event.preventDefault(); keys[key](); }
  });
  addEventListener("unhandledrejection", (event) => by("notes").append(element("p", "note", String(event.reason?.message ?? event.reason))));

  const hash = new URLSearchParams(location.hash.slice(1));
  const wanted = (name) => (hash.has(name) ? Number(hash.get(name)) : undefined);
  openRun(RUNS[wanted("run")] ? wanted("run") : 0, wanted("step"), wanted("rollout"));
})();
