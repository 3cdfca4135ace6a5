"""Known positives are found however they are dressed, and ordinary problems are not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from trace_builder import FAST, curated, trace

from licensing.errors import InputError
from synth.benchmarks import file_items, items_of
from synth.curate.config import CurateConfig
from synth.decontaminate import Finder, Item, texts_of, tokens
from synth.decontamination_recall import KINDS, measure_recall, plant
from synth.labels.config import DecontaminateConfig
from synth.problems.config import HubPrompts, ReasoningGymPrompts

SYLLABLES = ("ba", "ke", "lo", "mi", "nu", "pra", "sto", "tri", "ven", "zar", "dol", "fin")
_WORDS = random.Random(0)
NAMES = [f"{_WORDS.choice(SYLLABLES)}{_WORDS.choice(SYLLABLES)}".title() for _ in range(60)]
THINGS = ["".join(_WORDS.choices(SYLLABLES, k=3)) + "s" for _ in range(150)]
VERBS = ["".join(_WORDS.choices(SYLLABLES, k=2)) + "ed" for _ in range(60)]


def problems(seed: int, count: int) -> list[str]:
    """Word problems of made-up words, in a few frames, as alike as those of one author are."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        who, other = rng.sample(NAMES, 2)
        parts = []
        for _ in range(rng.randint(2, 4)):
            where = f"{rng.choice(('at', 'near', 'behind', 'for'))} the {rng.choice(THINGS)}"
            parts.append(f"{who} {rng.choice(VERBS)} {rng.randint(2, 99)} {rng.choice(THINGS)} {where}.")
        parts.append(f"{other} has {rng.randint(2, 9)} times as many {rng.choice(THINGS)}.")
        found.append(" ".join([*parts, f"How many {rng.choice(THINGS)} do {who} and {other} have together?"]))
    return found


TESTS = problems(1, 300)
OWN = problems(2, 300)


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder([Item("test", str(place), text) for place, text in enumerate(TESTS)])


@pytest.mark.parametrize("kind", KINDS)
def test_planted_items_are_found_as_themselves(finder: Finder, kind: str) -> None:
    rng = random.Random(7)
    found = []
    for place, text in enumerate(TESTS):
        match, overlap = finder.find(plant(text, kind, OWN, rng))
        found.append(match is not None and match.item.id == str(place))
        assert 0 <= overlap <= 1
    assert sum(found) >= 0.99 * len(TESTS)


def test_ordinary_problems_are_not_flagged(finder: Finder) -> None:
    assert sum(finder.find(text)[0] is not None for text in OWN) <= 3


def test_how_it_was_found_is_said(finder: Finder) -> None:
    text = TESTS[5]
    found, overlap = finder.find(f"Please solve: {text.upper()} Thank you!")
    assert found is not None
    assert (found.as_dict(), overlap) == ({"set": "test", "item": "5", "how": "exact"}, 1.0)
    found, _ = finder.find(plant(text, "other digits", [], random.Random(1)))
    assert found is not None
    assert (found.item.id, found.how) == ("5", "digit-blind")
    words = text.split()
    words[3], words[11] = "several", "old"
    found, overlap = finder.find(" ".join(words))
    assert found is not None
    assert (found.item.id, found.how) == ("5", "n-gram")
    assert overlap < 1


def test_a_long_text_around_an_item_does_not_hide_it(finder: Finder) -> None:
    long = " ".join(OWN)
    assert finder.find(long)[0] is None
    found, _ = finder.find(f"{long} {TESTS[9]} {long}")
    assert found is not None
    assert found.item.id == "9"


def test_pieces_of_an_item_scattered_over_a_long_text_are_no_copy(finder: Finder) -> None:
    words = TESTS[9].split()
    pieces = [" ".join(words[at : at + 7]) for at in range(0, len(words), 7)]
    filler = iter(OWN)
    assert finder.find(" ".join(f"{piece} {next(filler)} {next(filler)} {next(filler)}" for piece in pieces))[0] is None
    assert finder.find(" ".join(pieces))[0] is not None


def test_number_words_are_numbers_and_spelling_is_folded() -> None:
    finder = Finder(
        [Item("t", "1", "Her 3 older brothers carried 25 heavy boxes up the narrow wooden stairs before noon.")]
    )
    match, _ = finder.find(
        "Her four older brothers carried twenty-one heavy boxes up the narrow wooden stairs before noon."
    )
    assert match is not None
    assert match.how == "digit-blind"
    assert tokens(r"It's $\dfrac{1}{2}$ of 1,000") == tokens(r"it's \frac{1}{2} of 1000")


def test_the_last_item_of_a_template_is_not_found_in_every_text_made_from_it() -> None:
    frame = "State the final answer to the following arithmetic problem: {} ="
    rng = random.Random(1)

    def sums(count: int) -> list[str]:
        terms = [[str(rng.randint(1, 99)) for _ in range(rng.randint(2, 4))] for _ in range(count)]
        return [frame.format(rng.choice([" + ", " - "]).join(row)) for row in terms]

    held_out = sums(30)
    finder = Finder([Item("evaluate", str(place), text) for place, text in enumerate(held_out)])
    assert sum(finder.find(text)[0] is not None for text in sums(300)) <= 3
    assert all(finder.find(text)[0] is not None for text in held_out)
    assert finder.indistinct > 0  # and it says so


def test_short_items_match_only_a_text_that_holds_nothing_else() -> None:
    finder = Finder([Item("t", "1", "Compute 2 + 2")])
    assert finder.find("compute 2 + 2")[0] is not None
    tiny = Finder([Item("t", "1", "Why not?")])
    assert tiny.find("Why not?")[0] is not None
    assert tiny.find("Why not take the second road?") == (None, 0.0)
    assert Finder([]).find("anything at all") == (None, 0.0)


@pytest.mark.slow
def test_the_plant_report_measures_the_finder_it_is_given(finder: Finder) -> None:
    report = measure_recall(finder, OWN)
    assert set(report["recall"]) == set(KINDS)
    assert all(value is not None and value >= 0.98 for value in report["recall"].values())
    assert report["false_positive_rate"] is not None
    assert report["false_positive_rate"] <= 0.02

    class Blind(Finder):
        def find(self, text: str) -> tuple[None, float]:
            return None, 0.0

    assert set(measure_recall(Blind(finder.items), OWN)["recall"].values()) == {0.0}


def test_every_text_of_a_row_is_looked_at() -> None:
    row = {
        "id": "x",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "n": 3,
        "deep": {"er": ["b"]},
    }
    assert list(texts_of(row)) == ["x", "user", "text", "a", "b"]


# --- test sets and the run ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_test_sets_are_files_data_sets_and_the_held_out_problems(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "t.jsonl").write_text('{"id": "a", "question": "How many?"}\n{"prompt": "Why?"}\n')
    (tmp_path / "hub").mkdir()
    pq.write_table(pa.table({"asked": ["What is it?"]}), tmp_path / "hub" / "test.parquet")
    hub = HubPrompts(dataset=str(tmp_path / "hub"), split="test", columns={"prompt": "asked"})
    held_out = ReasoningGymPrompts(kind="reasoning_gym", task="chain_sum", size=2)
    items = items_of(DecontaminateConfig(against=(str(tmp_path / "t.jsonl"), hub)), held_out)
    assert [item.text for item in items][:3] == ["How many?", "Why?", "What is it?"]
    assert [item.set for item in items][3:] == ["evaluate", "evaluate"]
    assert items[0].id == "a"


@pytest.mark.parametrize("content", ["", "{}\n", '{"prompt": "a"}\n{torn\n'])
def test_a_test_set_that_cannot_be_read_whole_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(InputError):
        file_items(path)
    with pytest.raises(InputError, match="no such file"):
        items_of(DecontaminateConfig(against=(str(tmp_path / "absent.jsonl"),)))


@pytest.mark.slow
def test_contaminated_problems_are_labelled_and_dropped_unless_the_recipe_keeps_them(tmp_path: Path) -> None:
    texts = {"clean": OWN[0], "taken": f"Solve this. {TESTS[3]}"}
    rows = [
        trace(name, n, messages=[{"role": "user", "content": text}]) for name, text in texts.items() for n in range(2)
    ]
    items = [Item("exam", str(place), text) for place, text in enumerate(TESTS)]
    result = curated(rows, CurateConfig(control_arm=True), tmp_path / "out", items=items)
    assert {row["prompt_id"] for row in result.rows()} == {"clean"}
    assert {row["prompt_id"] for row in result.rows("control")} == {"clean"}
    assert [step["rows"] for step in result.waterfall if step["step"] in ("correct", "contaminated")] == [4, 2]
    assert result.drop_reasons()["taken-1"] == "contaminated: exact match with exam 3"
    labels = result.labels()["taken-1"]
    assert (labels["contaminated"], labels["contaminated_reason"]) == (True, "exact match with exam 3")
    report = result.json("decontamination.json")
    assert (report["prompts"], report["contaminated"], report["by_how"]) == (2, 1, {"exact": 1})
    assert (report["found"][0]["item"], report["found"][0]["text"]) == ("3", texts["taken"][:300])
    assert report["recall"]["embedded"] >= 0.98
    keeping = CurateConfig.model_validate({"filters": {"contaminated": False}})
    assert len(curated(rows, keeping, tmp_path / "kept", items=items).rows()) == 4


@pytest.mark.slow
def test_test_items_in_the_response_are_found_on_request(tmp_path: Path) -> None:
    rows = [trace("p", 0, text=f"<think>It is like this one: {TESTS[8]}</think>5")]
    items = [Item("exam", str(place), text) for place, text in enumerate(TESTS)]
    for on in (False, True):
        labels = FAST.model_copy(update={"decontaminate": DecontaminateConfig(responses=on)})
        result = curated(rows, CurateConfig(), tmp_path / f"out{on}", labels, items)
        assert len(result.rows()) == (0 if on else 1)


def test_without_test_sets_nothing_is_contaminated(tmp_path: Path) -> None:
    result = curated([trace("p", 0)], CurateConfig(), tmp_path / "out")
    assert result.labels()["p-0"]["contaminated"] is None
    assert result.json("decontamination.json") == {"items": 0, "sets": {}}
