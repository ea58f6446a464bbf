// Sorts and filters the board, compares all models with a selected one, and searches answers. The pages are readable without it.
const find = (name) => document.getElementById(name);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

const board = find("board");
if (board) {
  const body = board.tBodies[0], heads = all("thead th", board), apart = JSON.parse(find("apart").textContent);
  const rows = all("tr", body), inOrder = [...rows];

  const sortBy = (head, descending) => {
    const at = heads.indexOf(head);
    const value = (row) => (at ? Number(row.cells[at].dataset.value ?? NaN) : row.dataset.text);
    rows.sort((a, b) => {
      const x = value(a), y = value(b);
      if (at && (Number.isNaN(x) || Number.isNaN(y))) return Number.isNaN(x) - Number.isNaN(y);
      const order = (x > y) - (x < y) || inOrder.indexOf(b) - inOrder.indexOf(a);
      return descending ? -order : order;
    });
    body.append(...rows);
    for (const other of heads) other.setAttribute("aria-sort", other !== head ? "none" : descending ? "descending" : "ascending");
  };
  for (const head of heads) {
    head.querySelector("button").addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sortBy(head, now === "descending" ? false : now === "ascending" ? true : head !== heads[0]);
    });
  }

  const filter = () => {
    const words = find("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const gone = new Set(rows.filter((row) => !words.every((word) => row.dataset.text.includes(word))).map((row) => row.dataset.row));
    for (const part of all("[data-row]")) part.toggleAttribute("hidden", gone.has(part.dataset.row));
    find("count").textContent = gone.size ? `${rows.length - gone.size} of ${rows.length} models` : "";
  };
  find("find").addEventListener("input", filter);

  const metric = find("metric");
  metric?.addEventListener("change", () => {
    for (const part of all("[data-metric]", board)) part.hidden = part.dataset.metric !== metric.value;
    sortBy(heads.find((head) => head.dataset.metric === metric.value), true);
  });

  const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(1).replace("-", "−");
  const bestOf = (column) => {
    const cells = rows.map((row) => row.querySelector(`[data-column="${column}"]`)).filter((cell) => cell.dataset.value);
    return cells.reduce((a, b) => (Number(b.dataset.value) > Number(a.dataset.value) ? b : a)).closest("tr").dataset.row;
  };
  const best = apart.map((_, column) => bestOf(column));
  const beside = find("beside");
  beside.addEventListener("change", () => {
    for (const cell of all("[data-value]", body)) {
      const column = cell.dataset.column, row = cell.closest("tr").dataset.row, other = beside.value || best[column];
      const gap = cell.querySelector(".gap"), found = apart[column][row]?.[other], small = document.createElement("small");
      gap.className = "gap";
      if (row === other) {
        gap.textContent = beside.value ? "compared with this" : "best";
        gap.classList.add("best");
      } else if (!found) {
        gap.textContent = "not paired";
      } else {
        small.textContent = `[${signed(found[1])}, ${signed(found[2])}]`;
        gap.replaceChildren(`${signed(found[0])} `, small);
        gap.classList.add(found[1] > 0 ? "up" : found[2] < 0 ? "down" : "level");
      }
    }
  });
}

const search = find("search");
if (search) {
  const answers = all(".answer"), show = find("show");
  const texts = new Map();
  const text = (answer) => texts.get(answer) ?? texts.set(answer, answer.textContent.toLowerCase()).get(answer);
  const look = () => {
    const wanted = search.value.toLowerCase();
    let num = 0;
    for (const answer of answers) {
      const seen = (!show.value || answer.classList.contains(show.value)) && (!wanted || text(answer).includes(wanted));
      answer.hidden = !seen;
      num += seen;
    }
    find("count").textContent = `${num.toLocaleString("en")} of ${answers.length.toLocaleString("en")} answers`;
  };
  search.addEventListener("input", look);
  show.addEventListener("change", look);
  look();
}
for (const form of all("form")) form.addEventListener("submit", (event) => event.preventDefault());
