"""The report in a real browser, from disk: nothing hostile runs, filters and keys work, colours can be read."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium, open_browser
from report_runs import make_run, trace

from distill.report.build import build_report

pytestmark = [needs_chromium, pytest.mark.slow]

ATTACKS = [
    "<script>window.pwned = 1; alert(1)</script>",
    '</script><script>window.pwned = 1; alert("chunk")</script>',
    "<!--<script>window.pwned = 1</script>-->",
    '"><img src=x onerror="window.pwned = 1; alert(1)"><svg onload="window.pwned = 1">',
    '<a href="javascript:window.pwned=1">x</a> [x](javascript:window.pwned=1)',
    '<style>@import url("http://attack.invalid/a.css"); body { display: none }</style>',
    '<iframe srcdoc="<script>parent.pwned=1</script>"></iframe><base href="http://attack.invalid/">',
    '<meta http-equiv=refresh content="0;url=http://attack.invalid/"><object data="http://attack.invalid/"></object>',
    "</textarea></title></style></select></option><script>window.pwned = 1</script>",
    "left \u202eevil\u202c \u2066isolated\u2069 right",
    "half \ud800 and \udfff of a character \u0000 \u0007",
    "__proto__ constructor ${window.pwned = 1} {{window.pwned = 1}}",
]
FORMULAS = [
    r"\href{javascript:window.pwned=1}{click}",
    r"\url{http://attack.invalid/u}",
    r"\htmlData{x=1}{y} \htmlId{count}{y} \htmlClass{skip}{y} \htmlStyle{position:fixed;inset:0}{y}",
    r"\includegraphics[height=1em]{http://attack.invalid/i.png}",
    r"\def\a{\a\a}\a",
    r"\text{<img src=x onerror=window.pwned=1>}",
    r"\rule{99999em}{99999em} \kern{-99999em} x",
    r"\frac{1}{",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    driver.execute_cdp_cmd("Network.enable", {})
    yield driver
    driver.quit()


def wait(ready: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, "the page did not come so far"
        time.sleep(0.02)
    return found


def count(browser: Any) -> str:
    return str(browser.find_element("id", "count").text)


def title(browser: Any) -> str:
    return str(browser.find_element("id", "trace-title").text)


def open_page(browser: Any, page: Path, traces: int) -> None:
    browser.get(page.as_uri())
    wait(lambda: count(browser) == f"{traces} of {traces} traces")
    wait(lambda: browser.find_elements("css selector", "#trace-body .text"))


def choose(browser: Any, name: str, text: str) -> None:
    from selenium.webdriver.support.ui import Select

    select = Select(browser.find_element("id", f"f-{name}"))
    select.select_by_visible_text(next(item.text for item in select.options if item.text.startswith(text)))


def press(browser: Any, key: str) -> None:
    browser.switch_to.active_element.send_keys(key)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(make_run(tmp_path_factory.mktemp("tiny"), [trace(number) for number in range(40)])).html


def requests(browser: Any) -> list[str]:
    """Addresses that the page asked for since the last call, its own file left out."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:")) and not url.endswith("report.html")]


def dialog(browser: Any) -> str | None:
    from selenium.common.exceptions import NoAlertPresentException

    try:
        return str(browser.switch_to.alert.text)
    except NoAlertPresentException:
        return None


def test_nothing_in_a_hostile_trace_runs(browser: Any, tiny: Path, tmp_path: Path) -> None:
    formulas = [f"\\[{tex}\\] and ${tex}$" for tex in FORMULAS]
    columns = ("problem_id", "teacher", "engine", "extracted", "reason", "verdict")
    rows = []
    for at, evil in enumerate([*ATTACKS, *formulas]):
        labels = {"repetition": True, "repetition_reason": evil, "language_answer": evil}
        more = {"drop_reason": f"{evil}: {evil}", "kept": False, "labels": labels, "extra": {evil: evil}}
        more |= {"messages": [{"role": evil, "content": evil}], "text": f"<think>{evil}</think>{evil}"}
        more |= {"source": evil, "license": evil, "answer": evil}
        more |= dict.fromkeys(columns, evil.encode("utf-8", "backslashreplace").decode())  # tables hold UTF-8 alone
        rows.append(trace(at, **more))
    run = make_run(tmp_path, rows, statistics={"all": [{evil: evil for evil in ATTACKS}]})
    (run / "recipe.json").write_text(json.dumps({"name": ATTACKS[1], "description": ATTACKS[3], "sample": {}}))
    made = build_report(run)
    open_page(browser, tiny, 40)  # a harmless one, for the names that page and driver make
    title(browser)
    names = set(browser.execute_script("return Object.getOwnPropertyNames(window)"))
    browser.get_log("performance")
    browser.get_log("browser")

    open_page(browser, made.html, len(rows))
    for at in range(len(rows)):
        browser.execute_script("for (const fold of document.querySelectorAll('details')) fold.open = true")
        if at % 3 == 0:
            for _ in range(2):
                browser.execute_script("document.getElementById('side').click()")
        shown = browser.find_element("id", "trace-body")
        assert not shown.find_elements(
            "css selector", "script, img, iframe, style, base, meta, [onerror], [onload], [href]"
        )
        assert not shown.find_elements("css selector", "[id], [class~=skip], [data-x], object, embed, form")
        before = title(browser)
        browser.execute_script("document.getElementById('next').click()")
        if at + 1 < len(rows):
            wait(lambda before=before: title(browser) != before)
    for evil in ATTACKS[:3]:  # searching for it finds it, as text
        browser.execute_script("document.getElementById('f-text').value = arguments[0]", evil)
        browser.execute_script("document.getElementById('filters').requestSubmit()")
        wait(lambda: count(browser).startswith("1 of"))

    assert dialog(browser) is None
    assert browser.execute_script("return window.pwned") is None
    assert set(browser.execute_script("return Object.getOwnPropertyNames(window)")) == names
    assert browser.current_url == made.html.as_uri()
    assert requests(browser) == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    assert "[U+202E]" in browser.page_source


def test_the_policy_stops_what_would_get_past_the_escaping(browser: Any, tiny: Path) -> None:
    open_page(browser, tiny, 40)
    requests(browser)
    browser.execute_script(
        "document.body.insertAdjacentHTML('beforeend', '<img src=http://attack.invalid/x onerror=window.pwned=1>"
        "<svg onload=\"window.pwned=1\"></svg>'); const s = document.createElement('script');"
        "s.textContent = 'window.pwned = 1'; document.body.append(s)"
    )
    refused: list[str] = []

    def all_refused() -> bool:
        refused.extend(entry["message"] for entry in browser.get_log("browser"))
        policy = " ".join(message for message in refused if "Content Security Policy" in message)
        # Chromium 150 says the same of two event handlers once.
        return all(words in policy for words in ("inline script", "Loading the image", "inline event handler"))

    wait(all_refused)
    assert browser.execute_script("return window.pwned") is None
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    failed = [event["params"] for event in events if event["method"] == "Network.loadingFailed"]
    assert [event["blockedReason"] for event in failed] == ["csp"]


def test_filters_search_and_the_live_count(browser: Any, tiny: Path) -> None:
    open_page(browser, tiny, 40)
    for name, value, left in (
        ("verdict", "wrong", 20), ("source", "sums", 10), ("tag", "truncated", 5),
        ("drop_reason", "dropped at correct", 5), ("rate", "25 to 50 %", 5), ("rate", "never solved", 0),
    ):  # fmt: skip
        choose(browser, name, value)
        wait(lambda left=left: count(browser) == f"{left} of 40 traces")
    browser.find_element("id", "clear").click()
    wait(lambda: count(browser) == "40 of 40 traces")
    field = browser.find_element("id", "f-text")
    field.send_keys("THINKING 17\n")
    wait(lambda: count(browser) == "1 of 40 traces")
    wait(lambda: title(browser) == "p4, sample 1")
    said = browser.find_element("id", "trace-body").text
    assert "Dropped by the step “correct”: wrong." in said
    assert "another number" in said
    assert "cut" in said  # a label's reason
    fold = browser.find_element("css selector", "#trace-body details.think")
    assert fold.get_attribute("open") is None
    assert "thinking 17" not in fold.text
    fold.find_element("tag name", "summary").click()
    wait(lambda: "thinking 17" in fold.text)


def test_math_is_rendered_and_what_is_no_formula_stays_text(browser: Any, tmp_path: Path) -> None:
    said = r"So \(x^2\), it costs $5 or $6, \[\frac{1}{2}\] broken $\frac{1$ and \boxed{\frac{3}{4}}."
    open_page(browser, build_report(make_run(tmp_path, [trace(0, text=said)])).html, 1)
    box = browser.find_elements("css selector", "#trace-body .text")[-1]
    assert len(box.find_elements("css selector", ".math .katex-html")) == 3
    assert "it costs $5 or $6," in box.text
    assert r"broken $\frac{1$ and" in box.text
    fonts = "return document.fonts.ready.then(() => [...document.fonts].filter(f => f.status === 'loaded').length)"
    assert browser.execute_script(fonts) > 0
    browser.find_element("id", "math").click()
    wait(lambda: browser.find_elements("css selector", "#trace-body .text")[-1].text == said)


def test_keys_walk_the_traces_and_set_them_side_by_side(browser: Any, tiny: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, tiny, 40)
    press(browser, "j")
    wait(lambda: title(browser) == "p0, sample 1")
    assert browser.switch_to.active_element.get_attribute("id") == "trace-title"
    press(browser, Keys.ARROW_RIGHT)
    wait(lambda: title(browser) == "p0, sample 2")
    press(browser, "k")
    wait(lambda: title(browser) == "p0, sample 1")
    press(browser, "t")
    wait(lambda: "thinking 1" in browser.find_element("id", "trace-body").text)
    press(browser, "s")
    cards = wait(lambda: browser.find_elements("css selector", "#trace-body .card"))
    names = [card.get_attribute("aria-label") for card in cards]
    assert names == [
        "Sample 0",
        "Sample 1, chosen",
        "Sample 2",
        "Sample 3",
    ]
    assert browser.find_element("id", "side").get_attribute("aria-pressed") == "true"
    press(browser, "s")
    press(browser, "/")
    field = browser.switch_to.active_element
    assert field.get_attribute("id") == "f-text"
    field.send_keys("jk")  # letters, not keys, in a field
    assert field.get_attribute("value") == "jk"
    assert title(browser) == "p0, sample 1"
    browser.find_element("id", "keys").click()
    press(browser, "j")
    browser.find_element("id", "keys").click()
    press(browser, "k")
    wait(lambda: title(browser) == "p0, sample 0")


def test_the_tab_key_reaches_every_filter_in_order_and_focus_shows(browser: Any, tiny: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, tiny, 40)
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the content"
    seen: list[str] = []
    for _ in range(80):
        press(browser, Keys.TAB)
        seen.append(browser.switch_to.active_element.get_attribute("id"))
        style = "const s = getComputedStyle(document.activeElement); return s.outlineStyle + ' ' + s.outlineWidth"
        assert browser.execute_script(style) in ("solid 3px", "auto 3px"), seen[-1]
        if seen[-1] == "clear":
            break
    order = ["theme", "f-verdict", "f-drop_reason", "f-rate", "f-source", "f-tag", "f-text", "clear"]
    assert [name for name in seen if name in order] == order


def test_roles_and_names_for_a_screen_reader(browser: Any, tiny: Path) -> None:
    open_page(browser, tiny, 40)
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]}
    wanted = {
        ("navigation", "Sections"), ("search", "Traces"), ("main", ""), ("region", "Traces"), ("table", "Traces found"),
        ("combobox", "Verdict"), ("combobox", "Difficulty"), ("combobox", "Label"), ("button", "Next trace"),
        ("searchbox", "Text in prompt, response or answer"), ("checkbox", "Render math"), ("status", ""),
        ("columnheader", "Verdict"), ("rowheader", "p0 #0"), ("table", "Scores on held-out problems"),
        ("heading", "Scores"),
    }  # fmt: skip
    assert wanted - named == set()
    controls = ("button", "combobox", "searchbox", "checkbox", "link")
    assert not [role for role, name in named if role in controls and not name]
    assert browser.find_element("id", "count").get_attribute("aria-live") == "polite"


CONTRAST = """
const light = (c) => { const v = c / 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
const ground = (node) => { for (; node; node = node.parentElement) {
  const c = rgba(getComputedStyle(node).backgroundColor);
  if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
const poor = [];
for (const node of document.body.querySelectorAll('*')) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!own || node.disabled || !node.getClientRects().length || node.closest('.katex-mathml')) continue;
  const style = getComputedStyle(node);
  const ink = rgba(node.closest('svg.plot') ? style.fill : style.color);
  const [a, b] = [luminance(ink), luminance(ground(node))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) poor.push([node.tagName, node.className, node.textContent.slice(0, 30), ratio]);
}
return [poor, getComputedStyle(document.body).backgroundColor];
"""


def test_contrast_is_at_least_aa_in_light_and_dark_and_the_switch_switches(browser: Any, tiny: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        open_page(browser, tiny, 40)
        for _ in range(2):
            poor, ground = browser.execute_script(CONTRAST)
            assert poor == []
            grounds.append(ground)
            browser.find_element("id", "theme").click()
    assert grounds[0] == grounds[3] != grounds[1] == grounds[2]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_at_phone_width_nothing_sticks_out_and_nothing_moves_while_it_loads(browser: Any, tiny: Path) -> None:
    size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        open_page(browser, tiny, 40)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        size |= {"width": 1280, "height": 900, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    open_page(browser, tiny, 40)
    shifts = (
        "return new Promise(done => { let sum = 0; "
        "new PerformanceObserver(list => { for (const e of list.getEntries()) "
        "sum += e.value }).observe({type: 'layout-shift', buffered: true}); setTimeout(() => done(sum), 300) })"
    )
    assert browser.execute_script(shifts) < 0.01
