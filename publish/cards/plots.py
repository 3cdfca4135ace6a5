"""Plots of the cards as PNG, which the hub's pages show. Equal facts give equal bytes for one version of matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from publish.facts import DatasetFacts, EvaluationFacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _QUIET, _RELEASE = "#1f2937", "#64748b", "#b45309"


def has_score_plot(evaluation: EvaluationFacts | None) -> bool:
    """Every score has an interval."""
    return evaluation is not None and all(score.low is not None for score in evaluation.scores)


def has_length_plot(facts: DatasetFacts) -> bool:
    """Lengths were counted, and fall into more than one bin."""
    return sum(map(bool, facts.length_counts)) > 1


def score_plot(evaluation: EvaluationFacts) -> bytes:
    """PNG: a dot with its interval for every model, the release in another colour."""

    def draw(axes: Axes) -> None:
        scores = evaluation.scores[::-1]  # the axis counts from below
        for at, score in enumerate(scores):
            color = _RELEASE if score.about.role == "release" else _QUIET
            if score.low is not None and score.high is not None:
                axes.plot(
                    (score.low, score.high), (at, at), color=color, linewidth=3, clip_on=False, solid_capstyle="butt"
                )
            axes.plot(score.value, at, "o", color=color, markersize=8, clip_on=False)
            axes.text(1.03, at, f"{score.value:.3f}", va="center")
        axes.set_yticks(range(len(scores)), [_plain(score.model) for score in scores])
        axes.set_ylim(-0.6, len(scores) - 0.4)
        axes.set_xlim(0, 1)
        axes.set_xlabel(_plain(f"{scores[0].metric} on {evaluation.benchmark}, n = {evaluation.n:,}"))
        axes.grid(axis="x")

    return _png(draw, height=0.9 + 0.42 * len(evaluation.scores))


def length_plot(facts: DatasetFacts) -> bytes:
    """PNG: rows by the number of tokens of their trace."""

    def draw(axes: Axes) -> None:
        edges, counts = facts.length_edges, facts.length_counts
        last = max(at for at, count in enumerate(counts) if count) + 1
        first = min(at for at, count in enumerate(counts) if count)
        labels = [
            f"{low:,} to {high - 1:,}" if high else f"{low:,} and more"
            for low, high in zip(edges, (*edges[1:], None), strict=True)
        ]
        axes.bar(range(last - first), counts[first:last], color=_QUIET, width=0.8)
        axes.set_xticks(range(last - first), labels[first:last], rotation=30, ha="right")
        axes.set_xlabel("tokens of the trace")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y")

    return _png(draw, height=3.2)


def _png(draw: Callable[[Axes], None], height: float) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[str, Any] = {
        "font.size": 10, "text.parse_math": False, "text.color": _INK, "axes.labelcolor": _INK,
        "axes.edgecolor": _QUIET,
        "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False, "axes.spines.right": False,
        "grid.color": "#e2e8f0", "axes.axisbelow": True,
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(7.5, height), dpi=150, layout="constrained")
        draw(figure.add_subplot())
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})  # the version of matplotlib is no fact
    return out.getvalue()


def _plain(text: str) -> str:
    """``text`` without what matplotlib's fonts cannot draw, at most 60 characters."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= 60 else f"{printable[:59]}…"
