"""The report without a browser: what is counted, what is packed, what is said, and that it is one safe file."""

import base64
import gzip
import hashlib
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from report_runs import make_run, prepare, trace

from distill.report.build import build_report
from distill.report.markdown import visible
from distill.report.traces import pack_traces
from licensing.errors import InputError
from synth.labels.label import problem_stats_schema
from synth.parquet_files import read_parquet, write_parquet

ROWS = [trace(number) for number in range(40)]


def unpack(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def packed(page: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    index = re.search(r'id="index">([^<]*)<', page)
    assert index
    chunks = re.findall(r'id="chunk-\d+">([^<]*)<', page)
    return json.loads(unpack(index[1])), [json.loads(line) for chunk in chunks for line in unpack(chunk).split("\n")]


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row that the page has for a trace of ``report_runs``."""
    labels = {"truncated": {"value": row["labels"]["truncated"], "reason": row["labels"]["truncated_reason"]}}
    labels["language"] = {"value": {"prompt": "en", "think": None, "answer": None}, "reason": None}
    labels["pass_rate"] = {
        "value": 0.5, "reason": "2 of 4 samples are correct; 95 % interval 0.000 to 1.000",
        "n_correct": 2, "n_judged": 4, "low": 0.0, "high": 1.0,
    }  # fmt: skip
    labels |= {f"near_duplicate_{kind}": {"value": False, "reason": None} for kind in ("prompt", "trace")}
    same = ("messages", "answer", "kind", "source", "license", "request_id", "sample_index", "finish_reason", "error",
            "prompt_tokens", "completion_tokens", "engine", "verdict", "score", "extracted", "reason", "kept",
            "drop_reason")  # fmt: skip
    return {
        **{name: row[name] for name in same},
        "id": row["problem_id"],
        "prompt_id": row["problem_id"],
        "response": row["text"],
        "model": row["teacher"],
        "labels": labels,
    }


def test_the_page_holds_every_trace_whole_and_in_order_beside_an_index_that_agrees(tmp_path: Path) -> None:
    made = build_report(make_run(tmp_path, ROWS))
    index, rows = packed(made.html.read_text())
    assert rows == [shown(row) for row in ROWS]
    assert (made.traces, made.shown) == (40, 40)
    names = index["problem"]["names"]
    assert [names[code] for code in index["problem"]["codes"]] == [row["problem_id"] for row in ROWS]
    assert index["rates"] == [[2, 4]] * 10
    assert index["tokens"] == [row["completion_tokens"] for row in ROWS]
    assert [index["tags"]["names"][tag] for tag in index["tags"]["rows"][1]] == ["truncated", "language of prompt: en"]
    fates = [index["drop_reason"]["names"][code] for code in index["drop_reason"]["codes"]]
    assert fates == ["kept", "dropped at correct"] * 20


def test_the_viewers_pass_rate_counts_what_was_judged_and_the_verdict_that_counts(tmp_path: Path) -> None:
    of_judge = {"judge_verdict": "correct", "judge_model": "judge", "counts_as": "correct"}
    rows = [
        trace(0),
        trace(1, verdict="timeout"),
        trace(2, verdict="error"),
        trace(3, verdict="unparseable", finish_reason="error", error="500"),
        trace(4, verdict="wrong", **of_judge),
        trace(5, verdict="timeout", **of_judge),
        trace(6, verdict="wrong", **of_judge | {"counts_as": "wrong"}),
        trace(7, verdict="unparseable"),
    ]
    index, packed_rows = packed(build_report(make_run(tmp_path, rows, until="verify")).html.read_text())
    assert index["rates"] == [[1, 1], [2, 4]]
    assert [row.get("counts_as") for row in packed_rows[3:7]] == [None, "correct", "correct", "wrong"]


def test_behind_the_label_stage_the_viewers_pass_rate_is_the_one_that_was_measured(tmp_path: Path) -> None:
    """In a cascade it counts the samples of the first teacher alone."""
    run = make_run(tmp_path, ROWS[:8])
    stats = next(run.glob("stages/label/*/problem_stats.parquet"))
    rows = [row | {"n_judged": 2, "n_correct": at} for at, row in enumerate(read_parquet(stats))]
    write_parquet(stats, problem_stats_schema(), rows)
    index, packed_rows = packed(build_report(run).html.read_text())
    assert index["rates"] == [[0, 2], [1, 2]]
    assert packed_rows[7]["labels"]["pass_rate"]["reason"].startswith("1 of 2 samples are correct")


def test_the_summary_says_scores_waterfall_spend_lengths_and_licences_in_page_and_markdown(tmp_path: Path) -> None:
    made = build_report(make_run(tmp_path, ROWS, statistics={"rows": 20, "by_source": [{"name": "sums", "rows": 12}]}))
    page, text = made.html.read_text(), made.markdown.read_text()
    for words in (
        "0.500 to 1.000",
        "+0.125 to +0.875",
        "O-SHIP-LICENCE:mit",
        "add the text",
        "0.250",
        "clean-with-duties",
    ):
        assert words in page
        assert words.replace("-", r"\-") in text or words in text
    assert "| student after | 0.750 | 0.500 to 1.000 |" in text
    assert "| sums | 12 |" in text
    assert r"| \+0.500 | \+0.125 to +0.875 |" in text  # escaped once
    assert "| Model | pass&#64;1 |" in text
    assert page.count('class="plot"') == 5
    assert "style=" not in page.partition("<script")[0].partition("</style>")[2]


def test_a_cap_leaves_whole_problems_out_and_says_so_while_counts_stay_of_all(tmp_path: Path) -> None:
    made = build_report(make_run(tmp_path, ROWS), most=12)
    page = made.html.read_text()
    _, rows = packed(page)
    assert (made.traces, made.shown) == (40, 12)
    assert len({row["prompt_id"] for row in rows}) == 3
    assert "12 of 40 traces are in this page, those of 3 problems out of 10" in page
    assert "28 traces are not here" in page
    assert build_report(made.html.parent.parent, most=12).html.read_text() == page  # the same draw


def test_text_beyond_what_a_tab_holds_is_left_out_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.report.traces.MOST_BYTES", 6000)
    made = build_report(make_run(tmp_path, ROWS))
    _, rows = packed(made.html.read_text())
    assert 0 < made.shown == len(rows) < 40
    assert sum(len(json.dumps(row, ensure_ascii=False)) for row in rows) <= 6000


def test_what_is_no_json_number_reaches_the_page_as_null() -> None:
    out = io.StringIO()
    rows = [{"prompt_id": "a", "deep": [{"score": math.nan}]}, {"prompt_id": "b", "response": "NaN"}]
    pack_traces(lambda: iter(rows), out)
    assert [json.loads(line) for line in unpack(out.getvalue()).split("\n")] == [
        {"prompt_id": "a", "deep": [{"score": None}]},
        {"prompt_id": "b", "response": "NaN"},
    ]


def test_a_damaged_table_and_a_missing_text_are_named_and_the_old_report_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path, ROWS)
    before = build_report(run).html.read_bytes()
    verdicts = run / "stages" / "verify" / "k5" / "verdicts.parquet"
    content = verdicts.read_bytes()
    verdicts.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged") as caught:
        build_report(run)
    assert str(verdicts.parent) in str(caught.value.where)
    verdicts.write_bytes(content)
    log = run / "store" / "samples.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="r39"):
        build_report(run)
    assert (run / "report" / "report.html").read_bytes() == before
    assert sorted(path.name for path in (run / "report").iterdir()) == ["report.html", "report.md"]


def test_before_label_and_curate_the_report_has_traces_and_verdicts(tmp_path: Path) -> None:
    rows = [trace(0, extra={"labels": ["mine"], "kept": True}), trace(4, verdict=None, kind="open")]
    made = build_report(make_run(tmp_path, rows, until="verify"))
    index, packed_rows = packed(made.html.read_text())
    assert [row["verdict"] for row in packed_rows] == ["correct", None]
    assert index["drop_reason"]["names"] == ["not selected yet"]
    assert index["tags"] == {"names": [], "rows": [[], []]}  # a column of the user is no label
    assert packed_rows[0]["extra"]["labels"] == ["mine"]


def test_a_teachers_own_tags_are_shown_as_think_tags(tmp_path: Path) -> None:
    rows = [trace(0, text="[THINK]hm[/THINK]5", think_open="[THINK]", think_close="[/THINK]")]
    _, (row,) = packed(build_report(make_run(tmp_path, rows)).html.read_text())
    assert row["response"] == "<think>hm</think>5"


def test_labels_of_several_parts_make_filters_and_lists_of_one_length_one_table(tmp_path: Path) -> None:
    lengths = {"lengths": {"edges": [0, 64], "sampled": [96, 1]}, "rows": list(range(60))}
    labels = {"language_prompt": "en", "language_answer": "de"}
    made = build_report(make_run(tmp_path, [trace(0, labels=labels)], statistics=lengths))
    index, _ = packed(made.html.read_text())
    assert index["tags"]["names"] == ["language of prompt: en", "language of answer: de"]
    text = made.markdown.read_text()
    assert "| edges | sampled |\n| ---: | ---: |\n| 0 | 96 |\n| 64 | 1 |" in text
    assert "10 more rows of rows are in the artefact" in text


def test_hostile_names_stay_text_in_page_and_markdown(tmp_path: Path) -> None:
    evil = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\ud800"
    whole = evil.replace("\ud800", "")  # what a table can hold
    run = make_run(tmp_path, [trace(0, source=evil, problem_id=whole, verdict=whole, text="</script><!--<script>")])
    recipe = {"name": evil, "description": f"{evil} [a](javascript:alert(1))", "sample": {}}
    (run / "recipe.json").write_text(json.dumps(recipe))
    made = build_report(run)
    page, text = made.html.read_bytes().decode(), made.markdown.read_text()
    assert "<script>alert" not in page
    assert "<img" not in re.sub("<script>.*?</script>", "", page, flags=re.DOTALL)  # KaTeX's source names it
    assert "\u202e" not in page
    assert "[U+202E][U+D800]" in page
    assert "<img" not in text.partition("```")[0]
    assert "[a](javascript" not in text.partition("```")[0]  # its brackets are escaped
    assert r"\[a\](javascript" in text


def test_training_rows_are_shown_as_the_template_writes_them_with_the_trained_text_marked(tmp_path: Path) -> None:
    evil = "</mark></pre><script>alert(1)</script>\u202e"
    run = make_run(tmp_path, [trace(0), trace(2, text=f"<think>\n{evil}\n</think>\n\nIt is 2."), *ROWS[3:]])
    prepare(run)
    made = build_report(run)
    page, text = made.html.read_text(), made.markdown.read_text()
    first, second, _ = re.findall(r'<pre class="trained"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert first == (
        "&lt;|im_start|&gt;user\nWhat is 0 + 1?&lt;|im_end|&gt;\n&lt;|im_start|&gt;assistant\n"
        "<mark>&lt;think&gt;\nthinking 0\n&lt;/think&gt;\n\nIt is \\boxed{0}&lt;|im_end|&gt;</mark>"
    )
    assert "&lt;/mark&gt;&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;[U+202E]" in second
    assert "<|im_start|>assistant\n\u27e6<think>\nthinking 0" in text
    assert "<script>alert" not in page


def test_the_policy_allows_the_two_scripts_and_the_style_of_the_page_by_digest_and_nothing_else(tmp_path: Path) -> None:
    page = build_report(make_run(tmp_path, ROWS)).html.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    digest = lambda text: "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"  # noqa: E731
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [digest(text) for text in scripts]
    assert rules["style-src"] == digest(style)
    assert "unsafe" not in policy[1]
    assert set(re.findall(r"url\((?!data:font/woff2)[^)]*\)", style)) == set()
    assert style.count("url(data:font/woff2") == 20


def test_direction_overrides_controls_and_half_characters_become_visible() -> None:
    assert visible("a\u202eb\ud800\x00\n\tc é 中 \u200d") == "a[U+202E]b[U+D800][U+0000]\n\tc é 中 \u200d"


def test_assets_are_packaged_small_and_readable() -> None:
    folder = Path(build_report.__code__.co_filename).parent / "assets"
    for path in (*folder.glob("*.js"), *folder.glob("*.css"), *folder.glob("*.html")):
        lines = path.read_text().splitlines()
        assert len(lines) < 400, path
        assert max(map(len, lines)) < 400, path
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", path.read_text()
        )
    assert "MIT" in (folder / "katex" / "LICENSE").read_text()


@pytest.mark.slow
def test_the_command_prints_both_paths_and_refuses_what_is_no_run(tmp_path: Path, distill) -> None:
    run = make_run(tmp_path, ROWS)
    answer = distill("report", run, "--out", tmp_path / "there", "--traces", 8)
    assert answer.code == 0
    assert answer.out.split() == [str(tmp_path / "there" / name) for name in ("report.html", "report.md")]
    assert "8 of 40 traces" in answer.err
    answer = distill("report", tmp_path, "--json")
    assert (answer.code, answer.json["traces"], answer.json["shown"]) == (0, 40, 40)
    assert Path(answer.json["html"]) == run / "report" / "report.html"
    (tmp_path / "empty").mkdir()
    answer = distill("report", tmp_path / "empty")
    assert answer.code == 2
    assert "hint:" in answer.err
    (tmp_path / "file").write_text("")
    answer = distill("report", run, "--out", tmp_path / "file")
    assert answer.code == 2
    assert "--out" in answer.err


def test_what_failed_and_what_stopped_sampling_is_in_both_forms_of_the_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, ROWS)
    manifest = run / "stages" / "sample" / "k0" / "manifest.json"
    recorded = json.loads(manifest.read_text())
    recorded["facts"] |= {"finish_reasons": {"error": 3, "stop": 37}, "first_failure": "<b>no credit</b>"}
    recorded["facts"] |= {"stopped_by_budget": "hours", "awaited": 1200, "other_models": ["else-8b"]}
    manifest.write_text(json.dumps(recorded))
    made = build_report(run)
    page, text = made.html.read_text(), made.markdown.read_text()
    assert "3 of 40 requests failed, the first: &lt;b&gt;no credit&lt;/b&gt;" in page
    assert "<b>no credit" not in page + text
    stopped = ("stopped by the budget (hours)", "1,200 requests were awaited before the limit, 0 in flight then")
    for words in ("3 of 40 requests failed", *stopped, "other models answered: else"):
        assert words in page
        assert words in text
