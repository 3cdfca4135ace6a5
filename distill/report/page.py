"""The report as HTML and as Markdown.

**Hostile text.** Every text of a run goes through ``html.escape`` here, or is packed (``traces.py``) and put into the
page by ``textContent``. The content security policy allows the page's own script and style, by their
digests, and data URLs for fonts; no other script, no event handler, no address, no form.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import IO

from distill.report.markdown import Block, Listing, Plot, Section, Table, TrainedText, visible
from distill.report.traces import MOST_BYTES, TraceCounts
from publish.cards.markdown import fence, md, table

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("data.js", "text.js", "trace.js", "viewer.js")
"""Joined in this order into one script with no name outside it."""


def write_page(
    out: IO[str],
    title: str,
    description: str,
    sections: Sequence[Section],
    counted: TraceCounts | None,
    index: str,
    chunks: Iterable[str],
) -> None:
    """Write the page. The chunks come last and one at a time: the summary is painted while they are still read."""
    style, katex, own = _style(), _asset("katex/katex.min.js"), _script()
    policy = (
        f"default-src 'none'; script-src {_digest(katex)} {_digest(own)}; style-src {_digest(style)}; "
        "img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
    )
    out.write(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{_text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
    )
    links = [(section.name, section.title) for section in sections]
    if counted is not None:
        links.append(("traces", "Traces"))
    out.write(
        '<a class="skip" href="#content">Skip to the content</a>\n<header><div>\n'
        f"<h1>{_text(title)}</h1>\n<p>{_text(description)}</p>\n</div>\n"
        '<button type="button" id="theme">Dark colours</button>\n</header>\n<nav aria-label="Sections"><ul>'
    )
    out.write("".join(f'<li><a href="#{name}">{_text(text)}</a></li>' for name, text in links))
    out.write('</ul></nav>\n<main id="content" tabindex="-1">\n')
    for section in sections:
        out.write(f'<section id="{section.name}" aria-labelledby="{section.name}-title">\n')
        out.write(f'<h2 id="{section.name}-title">{_text(section.title)}</h2>\n')
        out.write("\n".join(map(_block, section.blocks)) + "\n</section>\n")
    if counted is not None:
        out.write(_asset("viewer.html").replace("{notice}", _text(_notice(counted))))
    out.write("</main>\n")
    out.write(f'<script type="application/octet-stream" id="index">{index}</script>\n')
    out.write(f"<script>{katex}</script>\n<script>{own}</script>\n")
    for number, chunk in enumerate(chunks):
        out.write(f'<script type="application/octet-stream" id="chunk-{number}">{chunk.strip()}</script>\n')
    out.write("</body>\n</html>\n")


def markdown(title: str, description: str, sections: Sequence[Section]) -> str:
    """The same sections as Markdown, without plots and traces."""
    parts = [f"# {md(title)}"] + ([md(description)] if description else [])
    for section in sections:
        parts.append(f"## {md(section.title)}")
        for block in section.blocks:
            if isinstance(block, Table):
                header = [md(name) for name in block.header]
                parts.append(f"{md(block.caption)}:\n\n" + table(header, block.rows, block.right))
            elif isinstance(block, TrainedText):
                text = f"{block.prompt}\u27e6{block.completion}\u27e7"
                parts.append(f"{md(block.title)}:\n\n" + fence(visible(text)))
            elif isinstance(block, Listing):
                parts.append(f"{md(block.title)}:\n\n" + fence(visible(block.text)))
            elif isinstance(block, str):
                parts.append(md(block))
    return "\n\n".join(parts) + "\n"


def _notice(counted: TraceCounts) -> str:
    if not counted.not_shown:
        return f"All {counted.total:,} traces of {counted.problems:,} problems are in this page."
    return (
        f"{counted.shown:,} of {counted.total:,} traces are in this page, those of {counted.shown_problems:,} problems "
        f"out of {counted.problems:,}, drawn by a hash of the problem's id. {counted.not_shown:,} traces are not here: "
        "neither filters nor search find them. The summary above counts all. "
        f"`distill report RUN --traces N` sets the number; a page holds {MOST_BYTES >> 20} MB of text at most."
    )


def _block(block: Block) -> str:
    if isinstance(block, Plot):
        return f'<div class="scroll">{block.svg}</div>'
    if isinstance(block, Listing):
        return f"<details><summary>{_text(block.title)}</summary><pre>{_text(block.text)}</pre></details>"
    if isinstance(block, TrainedText):
        text = f"{_text(block.prompt)}<mark>{_text(block.completion)}</mark>"
        label = _text(block.title)
        return f'<h3>{label}</h3><pre class="trained" tabindex="0" role="region" aria-label="{label}">{text}</pre>'
    if isinstance(block, str):
        return f"<p>{_text(block)}</p>"
    first = len(block.header) - block.right

    def cells(row: Sequence[str], tag: str) -> str:
        marks = ((' class="number"' if at >= first else "") for at in range(len(row)))
        scope = ' scope="col"' if tag == "th" else ""
        return "".join(f"<{tag}{scope}{mark}>{_text(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))

    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in block.rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(block.caption)}"><table>'
        f"<caption>{_text(block.caption)}</caption>"
        f"<thead><tr>{cells(block.header, 'th')}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _text(text: str) -> str:
    return escape(visible(text))


# --- assets ------------------------------------------------------------------------------------------------------


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    """Our style and KaTeX's, with the woff2 fonts in it and the older formats left away."""

    def inlined(match: re.Match[str]) -> str:
        font = (ASSETS / "katex" / match[1]).read_bytes()
        return f'src:url(data:font/woff2;base64,{base64.b64encode(font).decode("ascii")}) format("woff2")'

    katex = re.sub(r'src:url\((fonts/[\w-]+\.woff2)\) format\("woff2"\)[^}]*', inlined, _asset("katex/katex.min.css"))
    return katex + _asset("page.css")


@cache
def _script() -> str:
    return '(function () {\n"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
