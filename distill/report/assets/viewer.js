// Filters, list, pages, the chosen trace, keys.

const PAGE = 25;
const RATES = [
  ["never solved", (rate) => rate === 0], ["up to 25 %", (rate) => rate > 0 && rate <= 0.25],
  ["25 to 50 %", (rate) => rate > 0.25 && rate <= 0.5], ["50 to 75 %", (rate) => rate > 0.5 && rate <= 0.75],
  ["75 to below 100 %", (rate) => rate > 0.75 && rate < 1], ["always solved", (rate) => rate === 1],
  ["not judged", (rate) => Number.isNaN(rate)],
];

const byId = (id) => document.getElementById(id);
let traces;
let found = []; // numbers of the rows that pass the filters
let chosen = -1; // place in `found`
let round = 0; // of filtering: a newer one stops an older search
let drawing = 0; // of showing: a newer one wins

function fill(id, names, counts) {
  const select = byId(id);
  const all = make("option", "all");
  all.value = "";
  select.replaceChildren(all, ...names.map((name, code) => {
    const option = make("option", counts ? `${name} (${counts[code].toLocaleString("en")})` : name);
    option.value = String(code);
    return option;
  }));
}

function countCodes(column) {
  const counts = column.names.map(() => 0);
  for (const code of column.codes) counts[code] += 1;
  return counts;
}

function rateOf(row) {
  const [correct, judged] = traces.index.rates[traces.index.problem.codes[row]];
  return judged ? correct / judged : NaN;
}

function passing() {
  const index = traces.index;
  const wanted = ["verdict", "drop_reason", "source"].filter((name) => byId(`f-${name}`).value !== "")
    .map((name) => [index[name].codes, Number(byId(`f-${name}`).value)]);
  const band = byId("f-rate").value === "" ? null : RATES[Number(byId("f-rate").value)][1];
  const tag = byId("f-tag").value === "" ? null : Number(byId("f-tag").value);
  const rows = [];
  for (let row = 0; row < traces.count; row += 1) {
    if (wanted.some(([codes, code]) => codes[row] !== code)) continue;
    if (band && !band(rateOf(row))) continue;
    if (tag !== null && !index.tags.rows[row].includes(tag)) continue;
    rows.push(row);
  }
  return rows;
}

async function filter() {
  const mine = (round += 1);
  const text = byId("f-text").value;
  const bar = byId("progress");
  let rows = passing();
  bar.hidden = text === "";
  if (text !== "") {
    bar.value = 0;
    byId("count").textContent = `Searching ${rows.length.toLocaleString("en")} traces …`;
    rows = await traces.search(rows, text, (share) => { bar.value = share; }, () => mine !== round);
    if (rows === null) return;
    bar.hidden = true;
  }
  found = rows;
  chosen = -1;
  byId("count").textContent = `${rows.length.toLocaleString("en")} of ${traces.count.toLocaleString("en")} traces`;
  if (found.length) await show(0, false);
  else await showNothing();
}

function listRow(place) {
  const index = traces.index;
  const row = found[place];
  const [correct, judged] = index.rates[index.problem.codes[row]];
  const line = make("tr");
  const first = make("th");
  first.scope = "row";
  const button = make("button", `${index.problem.names[index.problem.codes[row]]} #${index.sample[row] < 0 ? "?" : index.sample[row]}`);
  button.type = "button";
  button.addEventListener("click", () => show(place, true));
  if (place === chosen) {
    button.setAttribute("aria-current", "true");
    line.className = "chosen";
  }
  first.append(button);
  line.append(
    first, make("td", index.verdict.names[index.verdict.codes[row]]),
    make("td", judged ? `${correct} of ${judged}` : "", "number"),
    make("td", index.tokens[row] < 0 ? "" : index.tokens[row].toLocaleString("en"), "number"),
    make("td", index.drop_reason.names[index.drop_reason.codes[row]]),
  );
  return line;
}

function drawList() {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  const page = chosen < 0 ? 0 : Math.floor(chosen / PAGE);
  const lines = [];
  for (let place = page * PAGE; place < Math.min(found.length, (page + 1) * PAGE); place += 1) lines.push(listRow(place));
  byId("list").replaceChildren(...lines);
  byId("page").textContent = `Page ${page + 1} of ${pages}`;
  byId("page-before").disabled = page === 0;
  byId("page-next").disabled = page + 1 >= pages;
  byId("before").disabled = chosen <= 0;
  byId("next").disabled = chosen + 1 >= found.length;
}

async function showNothing() {
  drawing += 1;
  drawList();
  byId("trace-title").textContent = "No trace passes these filters";
  byId("trace-body").replaceChildren();
}

async function show(place, focus) {
  if (place < 0 || place >= found.length) return;
  const mine = (drawing += 1);
  chosen = place;
  drawList();
  const number = found[place];
  const problem = traces.index.problem.codes[number];
  const math = byId("math").checked;
  const side = byId("side").getAttribute("aria-pressed") === "true";
  let nodes;
  if (side) {
    const all = traces.ofProblem[problem];
    const at = Math.max(0, Math.min(all.indexOf(number), all.length - MOST_SIDE_BY_SIDE));
    const numbers = all.slice(at, at + MOST_SIDE_BY_SIDE);
    const rows = [];
    for (const one of numbers) rows.push({ number: one, row: await traces.row(one) });
    if (mine !== drawing) return;
    nodes = sideBySide(rows, number, all.length - numbers.length, math);
  } else {
    const row = await traces.row(number);
    if (mine !== drawing) return;
    nodes = traceNodes(row, math);
  }
  const title = byId("trace-title");
  title.textContent = visible(`${traces.index.problem.names[problem]}, sample ${traces.index.sample[number]}`);
  byId("trace-body").replaceChildren(...nodes);
  if (focus) title.focus({ preventScroll: false });
}

function turnPage(by) {
  const page = Math.max(0, Math.floor(chosen / PAGE)) + by;
  show(page * PAGE, false);
}

function toggleSide() {
  const button = byId("side");
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  show(chosen, false);
}

function toggleThinking() {
  const folds = [...document.querySelectorAll("#trace-body details.think")];
  const open = folds.some((fold) => !fold.open);
  for (const fold of folds) fold.open = open;
}

const KEYS = {
  j: () => show(chosen + 1, true), ArrowRight: () => show(chosen + 1, true),
  k: () => show(chosen - 1, true), ArrowLeft: () => show(chosen - 1, true),
  t: toggleThinking, s: toggleSide, "/": () => byId("f-text").focus(),
};

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented || !byId("keys").checked) return;
  if (event.target.closest("input, select, textarea, .scroll, .side") && event.key.startsWith("Arrow")) return;
  if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

async function startViewer() {
  traces = new Traces(JSON.parse(await unpack(byId("index"))));
  const { index } = traces;
  for (const name of ["verdict", "drop_reason", "source"]) fill(`f-${name}`, index[name].names, countCodes(index[name]));
  fill("f-rate", RATES.map(([name]) => name));
  const counts = index.tags.names.map(() => 0);
  for (const tags of index.tags.rows) for (const tag of tags) counts[tag] += 1;
  fill("f-tag", index.tags.names, counts);
  byId("f-tag").disabled = !index.tags.names.length;
  byId("filters").addEventListener("submit", (event) => { event.preventDefault(); filter(); });
  for (const name of ["verdict", "drop_reason", "rate", "source", "tag"]) byId(`f-${name}`).addEventListener("change", filter);
  byId("clear").addEventListener("click", () => { byId("filters").reset(); filter(); });
  byId("before").addEventListener("click", () => show(chosen - 1, false));
  byId("next").addEventListener("click", () => show(chosen + 1, false));
  byId("page-before").addEventListener("click", () => turnPage(-1));
  byId("page-next").addEventListener("click", () => turnPage(1));
  byId("side").addEventListener("click", toggleSide);
  byId("math").addEventListener("change", () => show(chosen, false));
  document.addEventListener("keydown", onKey);
  await filter();
}

function startTheme() {
  const root = document.documentElement;
  const button = byId("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light colours" : "Dark colours"; };
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
}

window.addEventListener("unhandledrejection", (event) => {
  byId("count").textContent = `Something went wrong: ${event.reason && event.reason.message}`;
});
startTheme();
if (byId("index").textContent) {
  startViewer().catch((error) => { byId("count").textContent = `The traces could not be read: ${error.message}`; });
}
