// The index and the chunks: base64 of gzip in script elements that hold data, unpacked when they are asked for.

const parsed = new Promise((done) => {
  if (document.readyState !== "loading") done();
  else document.addEventListener("DOMContentLoaded", () => done(), { once: true });
});

async function unpack(element) {
  const packed = Uint8Array.from(atob(element.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Rows of the newest chunks stay unpacked; a chunk is some hundred kilobytes.
class Traces {
  constructor(index) {
    this.index = index;
    this.count = index.sample.length;
    this.starts = [];
    let at = 0;
    for (const rows of index.chunks) {
      this.starts.push(at);
      at += rows;
    }
    this.kept = new Map();
    this.ofProblem = index.problem.names.map(() => []);
    index.problem.codes.forEach((code, row) => this.ofProblem[code].push(row));
  }

  chunkOf(row) {
    let low = 0;
    let high = this.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  async chunk(number) {
    let rows = this.kept.get(number);
    if (rows) this.kept.delete(number);
    else {
      let element = document.getElementById(`chunk-${number}`);
      // While the page is still being read, the last element may not be whole: one with a successor is.
      if (!element || !element.nextElementSibling) {
        await parsed;
        element = document.getElementById(`chunk-${number}`);
      }
      rows = (await unpack(element)).split("\n").map((line) => JSON.parse(line));
    }
    this.kept.set(number, rows);
    if (this.kept.size > 8) this.kept.delete(this.kept.keys().next().value);
    return rows;
  }

  async row(number) {
    const chunk = this.chunkOf(number);
    return (await this.chunk(chunk))[number - this.starts[chunk]];
  }

  // The rows among `candidates` (ascending) that hold `text`, in either case. `tell(share, found)` after each chunk;
  // null where `stopped()` became true.
  async search(candidates, text, tell, stopped) {
    const wanted = text.toLowerCase();
    const found = [];
    let at = 0;
    while (at < candidates.length) {
      const number = this.chunkOf(candidates[at]);
      const rows = await this.chunk(number);
      for (; at < candidates.length && candidates[at] < this.starts[number] + rows.length; at += 1) {
        if (searched(rows[candidates[at] - this.starts[number]]).toLowerCase().includes(wanted)) found.push(candidates[at]);
      }
      if (stopped()) return null;
      tell(at / candidates.length, found.length);
      // Lets the browser paint and take input between two chunks.
      await new Promise((go) => setTimeout(go, 0));
    }
    return found;
  }
}

function searched(row) {
  const asked = row.messages.map((message) => plain(message.content));
  return [...asked, plain(row.response), plain(row.answer), plain(row.drop_reason)].join("\n");
}

function plain(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}
