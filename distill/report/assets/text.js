// Text of a trace as nodes. It only ever goes in by textContent, or through KaTeX with trust off.

const MOST_FORMULAS = 400;
const MOST_FORMULA = 4000; // characters; a longer one is no formula

// The twin of `visible` in markdown.py: what reorders text, controls, and halves of characters are shown as codes.
// eslint-disable-next-line no-control-regex
const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/gu;

function visible(text) {
  return text.replace(HIDDEN, (c) => `[U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

function make(tag, text, kind) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = visible(String(text));
  if (kind) node.className = kind;
  return node;
}

// A box of text with its formulas rendered, if `math`. `dir=auto` lets each text find its own direction.
function textBox(text, math) {
  const box = make("div", undefined, "text");
  box.dir = "auto";
  if (!math) {
    box.textContent = visible(text);
    return box;
  }
  let at = 0;
  let left = MOST_FORMULAS;
  for (const formula of formulas(text)) {
    if (left === 0) break;
    box.append(visible(text.slice(at, formula.start)));
    box.append(rendered(formula, text.slice(formula.start, formula.end)));
    at = formula.end;
    left -= 1;
  }
  box.append(visible(text.slice(at)));
  return box;
}

function rendered(formula, raw) {
  const node = make("span", undefined, formula.display ? "math display" : "math");
  try {
    katex.render(formula.tex, node, {
      trust: false, throwOnError: true, strict: "ignore", displayMode: formula.display, maxSize: 8, maxExpand: 200,
    });
  } catch {
    node.className = "raw"; // not a formula that KaTeX knows: the text says it better than an error
    node.textContent = visible(raw);
  }
  return node;
}

// { start, end, tex, display } of \[ \], \( \), $$ $$, $ $ on one line (not before a digit: prices), and bare \boxed{ }.
function* formulas(text) {
  const opening = /\\\[|\\\(|\$\$|\$|\\boxed\s*\{/g;
  let match;
  while ((match = opening.exec(text))) {
    const start = match.index;
    const inside = opening.lastIndex;
    let close = -1;
    let end = -1;
    if (match[0].startsWith("\\boxed")) {
      close = end = closingBrace(text, inside);
    } else if (match[0] === "$") {
      const one = /^(?=\S)[^$\n]*?[^\s\\$]\$(?!\d)/.exec(text.slice(inside, inside + MOST_FORMULA));
      if (one) {
        close = inside + one[0].length - 1;
        end = close + 1;
      }
    } else {
      const mark = { "\\[": "\\]", "\\(": "\\)", "$$": "$$" }[match[0]];
      close = text.slice(inside, inside + MOST_FORMULA).indexOf(mark);
      close = close < 0 ? -1 : inside + close;
      end = close + mark.length;
    }
    if (close < 0) continue;
    const bare = match[0].startsWith("\\boxed");
    yield {
      start, end, tex: bare ? text.slice(start, end) : text.slice(inside, close),
      display: match[0] === "\\[" || match[0] === "$$",
    };
    opening.lastIndex = end;
  }
}

// Where the brace that was opened before `at` is closed, one behind it; -1 if nowhere near.
function closingBrace(text, at) {
  let depth = 1;
  const last = Math.min(text.length, at + MOST_FORMULA);
  for (let i = at; i < last; i += 1) {
    if (text[i] === "\\") i += 1;
    else if (text[i] === "{") depth += 1;
    else if (text[i] === "}" && (depth -= 1) === 0) return i + 1;
  }
  return -1;
}

// A response as its parts: text, and think blocks, which are folded. An unclosed block reaches to the end; a closing
// mark without an opening one (the template opened it) ends a block that began with the response.
function responseParts(text) {
  const parts = [];
  let at = 0;
  const first = text.indexOf("</think>");
  if (first >= 0 && !text.slice(0, first).includes("<think>")) {
    parts.push({ think: true, text: text.slice(0, first), note: "" });
    at = first + "</think>".length;
  }
  while (at < text.length) {
    const open = text.indexOf("<think>", at);
    if (open < 0) break;
    if (text.slice(at, open).trim()) parts.push({ think: false, text: text.slice(at, open) });
    const inside = open + "<think>".length;
    const close = text.indexOf("</think>", inside);
    const end = close < 0 ? text.length : close;
    parts.push({ think: true, text: text.slice(inside, end), note: close < 0 ? ", never closed" : "" });
    at = close < 0 ? end : close + "</think>".length;
  }
  if (text.slice(at).trim()) parts.push({ think: false, text: text.slice(at) });
  return parts;
}
