// One trace, or the samples of one problem side by side, as nodes.

const SHOWN = new Set(["id", "prompt_id", "messages", "response", "answer", "verdict", "extracted", "score", "reason",
  "finish_reason", "completion_tokens", "prompt_tokens", "model", "engine", "source", "license", "labels", "kept", "drop_reason",
  "sample_index", "kind", "error"]);
const MOST_SIDE_BY_SIDE = 16;

function factList(pairs) {
  const list = make("dl");
  for (const [name, value] of pairs) {
    if (plain(value) === "") continue;
    const pair = make("div");
    pair.append(make("dt", name), make("dd", plain(value)));
    list.append(pair);
  }
  return list;
}

function titled(title, ...nodes) {
  const part = make("div", undefined, "part");
  part.append(make("h4", title), ...nodes);
  return part;
}

function fateBox(row) {
  if (row.kept === true) return make("p", "Kept: the student is trained on it.", "fate kept");
  if (row.drop_reason) {
    const [step, ...why] = plain(row.drop_reason).split(":");
    const detail = why.join(":").trim();
    return make("p", `Dropped by the step “${step}”${detail ? `: ${detail}` : ""}.`, "fate");
  }
  return make("p", "kept" in row ? "Dropped." : "Not selected yet: curation has not run.", "fate");
}

function responseNodes(row, math) {
  const parts = responseParts(plain(row.response));
  if (!parts.length) return [make("p", row.error ? `No text: ${plain(row.error)}` : "No text.")];
  return parts.map((part) => {
    if (!part.think) return textBox(part.text.trim(), math);
    const fold = make("details", undefined, "think");
    fold.append(make("summary", `Thinking, ${part.text.length.toLocaleString("en")} characters${part.note}`));
    // Rendered when it is first opened: most never are, and some hold ten thousand words.
    fold.addEventListener("toggle", () => {
      if (fold.open && fold.childElementCount === 1) fold.append(textBox(part.text.trim(), math));
    });
    return fold;
  });
}

function promptNodes(row, math) {
  return row.messages.flatMap((message) => [
    make("p", plain(message.role), "role"), textBox(plain(message.content), math),
  ]);
}

function labelTable(labels) {
  const table = make("table");
  table.append(make("caption", "Labels"));
  const head = make("tr");
  for (const name of ["Label", "Value", "Reason"]) {
    const cell = make("th", name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = make("tbody");
  for (const [name, label] of Object.entries(labels)) {
    const line = make("tr");
    const first = make("th", name);
    first.scope = "row";
    line.append(first, make("td", plain(label.value)), make("td", plain(label.reason)));
    body.append(line);
  }
  const header = make("thead");
  header.append(head);
  table.append(header, body);
  return table;
}

function verdictFacts(row) {
  return [
    ["Verdict", row.verdict ?? "none"], ["Extracted", row.extracted], ["Expected", row.answer], ["Score", row.score],
    ["Reason", row.reason], ["Ended by", row.finish_reason], ["Tokens", row.completion_tokens],
  ];
}

function traceNodes(row, math) {
  const others = Object.fromEntries(Object.entries(row).filter(([name]) => !SHOWN.has(name)));
  const nodes = [
    fateBox(row),
    factList(verdictFacts(row)),
    titled("Prompt", ...promptNodes(row, math)),
    titled("Response", ...responseNodes(row, math)),
  ];
  if (row.labels) nodes.push(titled("Labels and their reasons", labelTable(row.labels)));
  nodes.push(titled("Where it comes from", factList([
    ["Source", row.source], ["Licence", row.license], ["Kind", row.kind], ["Model", row.model], ["Engine", row.engine],
    ["Prompt tokens", row.prompt_tokens],
  ])));
  if (Object.keys(others).length) {
    const fold = make("details");
    fold.append(make("summary", "Further fields"), make("pre", JSON.stringify(others, null, 1)));
    nodes.push(fold);
  }
  return nodes;
}

function sideBySide(rows, chosen, more, math) {
  const first = rows[0].row;
  const grid = make("div", undefined, "side");
  grid.tabIndex = 0;
  grid.setAttribute("role", "group");
  grid.setAttribute("aria-label", `${rows.length} samples of one problem`);
  for (const { number, row } of rows) {
    const card = make("section", undefined, number === chosen ? "card chosen" : "card");
    const title = `Sample ${plain(row.sample_index)}${number === chosen ? ", chosen" : ""}`;
    card.setAttribute("aria-label", title);
    card.append(make("h4", title), fateBox(row), factList(verdictFacts(row)), ...responseNodes(row, math));
    grid.append(card);
  }
  const nodes = [titled("Prompt", ...promptNodes(first, math)), grid];
  if (more > 0) nodes.push(make("p", `${more} more samples of this problem are in the list.`));
  return nodes;
}
