"use strict";
// The table of samples: filters, sorting and pages over the rows that stand in #table-data.
// Titles and ids are anybody's text: they reach the page as textContent and title alone.
(() => {
  const source = document.getElementById("table-data");
  if (!source) return;
  const { rows, titles, reasons, states, exponents } = JSON.parse(source.textContent);
  const scores = Object.keys(exponents);
  const PAGE = 50, CUT = 60;
  const SAMPLE = 0, USER = 1, HISTORY = 2, EARLIER = 3, TARGET = 4, REASON = 5, SCORES = 6, RANK = SCORES + scores.length;
  const by = (id) => document.getElementById(id);
  const table = by("sample-rows"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const strata = heads.some((head) => head.dataset.column === "stratum");
  const search = by("search"), state = by("state");
  const collator = new Intl.Collator("en", { numeric: true });

  const value = {
    rank: (row) => row[RANK],
    sample: (row) => row[SAMPLE],
    user: (row) => String(row[USER]),
    history: (row) => row[HISTORY].length + row[EARLIER],
    target: (row) => titles[row[TARGET]],
    why: (row) => reasons[row[REASON]][2],
    stratum: (row) => reasons[row[REASON]][1] ?? undefined,
  };
  scores.forEach((name, at) => { value[name] = (row) => row[SCORES + at] ?? undefined; });

  let matches = rows, column = null, down = false, page = 0, texts = null;

  // As formats.py has it: whole numbers in full, others with three significant digits.
  function number(x) {
    if (x === undefined) return "";
    if (Number.isInteger(x)) return x.toLocaleString("en");
    const magnitude = Math.floor(Math.log10(Math.abs(x)));
    if (magnitude < -5 || magnitude >= 12) return x.toExponential(2);
    const digits = Math.max(0, 2 - magnitude);
    return x.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  function text(words) {
    const element = document.createElement("bdi"), letters = Array.from(words);
    element.textContent = letters.length > CUT ? letters.slice(0, CUT - 1).join("") + "\u2026" : words;
    if (letters.length > CUT) element.title = words;
    return element;
  }

  function cell(kind, ...content) {
    const element = document.createElement("td");
    if (kind) element.className = kind;
    element.append(...content);
    return element;
  }

  function line(row) {
    const element = document.createElement("tr"), earlier = [];
    if (row[EARLIER]) {
      earlier.push(document.createElement("span"));
      earlier[0].className = "quiet";
      earlier[0].textContent = `${row[EARLIER]} earlier`;
    }
    element.append(
      cell("n", number(value.rank(row))),
      cell("n", String(row[SAMPLE])),
      cell("id", text(String(row[USER]))),
      cell("titles", ...earlier, ...row[HISTORY].map((place) => text(titles[place]))),
      cell("one", text(titles[row[TARGET]])),
      cell("why", value.why(row)),
      ...(strata ? [cell("n", number(value.stratum(row)))] : []),
      ...scores.map((name) => cell("n", number(value[name](row)))),
    );
    return element;
  }

  function show() {
    const last = Math.max(0, Math.ceil(matches.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    const from = page * PAGE, lines = matches.slice(from, from + PAGE).map(line);
    if (!lines.length) {
      const none = cell("", "No sample is like that.");
      none.colSpan = heads.length;
      lines.push(document.createElement("tr"));
      lines[0].className = "empty";
      lines[0].append(none);
    }
    body.replaceChildren(...lines);
    const to = Math.min(from + PAGE, matches.length);
    by("place").textContent = matches.length ? `${number(from + 1)} to ${number(to)} of ${number(matches.length)}` : "0";
    by("previous").disabled = page === 0;
    by("next").disabled = page === last;
    table.parentElement.scrollTop = 0;
  }

  function words(row) {
    return [row[SAMPLE], row[USER], titles[row[TARGET]], ...row[HISTORY].map((place) => titles[place])].join("\n").toLowerCase();
  }

  function filter() {
    const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean), only = state.value;
    if (terms.length) texts ??= rows.map(words);
    matches = rows.filter((row, at) =>
      (only === "" || reasons[row[REASON]][0] === Number(only)) && terms.every((word) => texts[at].includes(word)));
    if (column) sort();
    page = 0;
    show();
  }

  // Rows without a value come last either way; equal ones stay in the page's own order.
  function sort() {
    const read = value[column], sign = down ? -1 : 1;
    const keys = new Map(matches.map((row) => [row, read(row)]));
    matches = matches.slice().sort((left, right) => {
      const a = keys.get(left), b = keys.get(right);
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return sign * (typeof a === "string" ? collator.compare(a, b) : a - b);
    });
  }

  heads.forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const scored = [...scores, "history"].includes(head.dataset.column);
    button.addEventListener("click", () => {
      const again = column === head.dataset.column;
      down = again ? !down : scored;
      column = head.dataset.column;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      filter();
    });
  });

  states.forEach((name, place) => {
    const count = rows.reduce((sum, row) => sum + (reasons[row[REASON]][0] === place), 0);
    if (count) state.add(new Option(`${name} (${number(count)})`, String(place)));
  });

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  state.addEventListener("change", filter);
  by("previous").addEventListener("click", () => { page -= 1; show(); });
  by("next").addEventListener("click", () => { page += 1; show(); });
  by("controls").hidden = false;
  by("without-script").hidden = true;
  by("with-script").hidden = false;
  by("samples-section").classList.add("live");
  show();
})();
