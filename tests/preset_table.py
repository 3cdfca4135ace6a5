"""The table of public data sets in docs/data.md, made from the presets.

python tests/preset_table.py        writes it into the page
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "data.md"
_BEGIN, _END = "<!-- presets: python tests/preset_table.py -->\n", "<!-- end of presets -->\n"


def table() -> str:
    """One line a preset."""
    from synth.problems.preset import Preset, presets

    def row(preset: Preset) -> str:
        address = re.search(r"https://[^\s,)\"]+", preset.license_source)
        link = f"[{preset.license_text}]({address[0].rstrip('.')})" if address else preset.license_text
        license_cell = f"{link}: declare it" if preset.license_text == "unclear" else link
        faults = "; ".join(f"{fault.what} ([report]({fault.reference}))" for fault in preset.faults)
        test_set = " **Test set.**" if preset.is_test_set else ""
        traces = " **Traces.**" if preset.traces else ""
        cells = (
            f"[`{preset.name}`]({preset.address})", preset.about + "." + test_set + traces, preset.rows,
            ", ".join(preset.kinds), license_cell, "; ".join(preset.left_out), preset.graded, faults,
        )  # fmt: skip
        return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |\n"

    header = ("preset", "what it is", "rows", "kinds", "license", "left out", "graded", "known faults")
    lines = [f"| {' | '.join(header)} |\n", f"|{'---|' * len(header)}\n", *map(row, presets().values())]
    return _BEGIN + "".join(lines) + _END


def written(page: str) -> str:
    """The page with the table as the presets are now."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + table() + after


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
