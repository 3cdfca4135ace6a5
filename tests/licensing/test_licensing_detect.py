"""License texts by content: whole copies, edited copies, mere references, several in one file, hostile megabytes."""

from __future__ import annotations

import re

import pytest
from sample_texts import APACHE, MIT, model_license, standard

from licensing.detect import recognise
from licensing.license_texts import license_text
from licensing.registry import DATA, builtin

_WORDS = APACHE.split()


def read(text: str) -> tuple[str, ...]:
    return recognise("LICENSE", text).licenses


@pytest.mark.parametrize(
    ("spdx", "found"),
    [
        ("Apache-2.0", "apache-2.0"), ("MIT", "mit"), ("BSD-3-Clause", "bsd-3-clause"),
        ("BSD-2-Clause", "bsd-2-clause"),
        ("ISC", "isc"), ("Unlicense", "unlicense"), ("CC0-1.0", "cc0-1.0"), ("CC-BY-4.0", "cc-by-4.0"),
        ("CC-BY-SA-4.0", "cc-by-sa-4.0"), ("CC-BY-NC-4.0", "cc-by-nc-4.0"), ("CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0"),
        ("CC-BY-NC-ND-4.0", "cc-by-nc-nd-4.0"), ("CC-BY-3.0", "cc-by-3.0"), ("ODC-By-1.0", "odc-by-1.0"),
        ("ODbL-1.0", "odbl-1.0"), ("CDLA-Permissive-2.0", "cdla-permissive-2.0"), ("JSON", "JSON"), ("MIT-0", "MIT-0"),
    ],
)  # fmt: skip
def test_a_standard_text_is_recognised_and_told_from_its_cousins(spdx: str, found: str) -> None:
    assert read(standard(spdx)) == (found,)


def test_titles_copyright_lines_and_appendices_do_not_matter() -> None:
    assert read("MIT License\n\nCopyright (c) 2025 DeepSeek\n\n" + MIT) == ("mit",)
    assert read("      Copyright 2025 Somebody\n\n" + APACHE) == ("apache-2.0",)
    assert read(APACHE.split("END OF TERMS AND CONDITIONS")[0]) == ("apache-2.0",)
    assert read(APACHE.replace("[yyyy] [name of copyright owner]", "2024 Somebody & Co.")) == ("apache-2.0",)
    assert read(" ".join(APACHE.upper().split())) == ("apache-2.0",)
    by = standard("CC-BY-4.0")
    terms = by[by.index("By exercising the Licensed Rights") : by.index("Creative Commons is not a party")]
    assert read(terms) == ("cc-by-4.0",)


@pytest.mark.parametrize(
    "text",
    [
        MIT + "\n\nYou may not use the Software for any commercial purpose without a licence of its own.",
        APACHE + "\n\nAdditional terms: the model may not be used by firms with more than 100 million users.",
        "You may not use this model to train another one unless we agree in writing first.\n\n" + MIT,
        APACHE.replace("3. Grant", "2a. The Work must only be used by natural persons for fun. 3. Grant"),
        APACHE.replace(APACHE[APACHE.index("(b) You must cause") : APACHE.index("(c) You must retain")], ""),
    ],
)  # fmt: skip
def test_a_text_with_terms_put_in_or_taken_out_is_not_that_licence(text: str) -> None:
    file = recognise("LICENSE", text)
    assert file.licenses == ()
    assert file.near in ("MIT", "Apache-2.0")


def test_an_spdx_line_does_not_outrank_the_text_below_it() -> None:
    assert read("SPDX-License-Identifier: MIT\n\n" + standard("CC-BY-NC-4.0")) == ("cc-by-nc-4.0",)


def test_several_texts_in_one_file_are_all_found_in_any_order() -> None:
    mit = "MIT License\n\nCopyright (c) 2025 Somebody\n\n" + MIT
    assert set(read(APACHE + "\n\n----\n\n" + mit)) == {"apache-2.0", "mit"}
    assert set(read(mit + "\n\n----\n\n" + APACHE)) == {"apache-2.0", "mit"}
    assert set(read(model_license("llama3.1") + APACHE)) == {"llama3.1", "apache-2.0"}


MODEL_TEXTS = {
    name: license_text(name) or "" for name in builtin().entries if (DATA / "texts" / f"{name}.txt").is_file()
}


@pytest.mark.parametrize("name", MODEL_TEXTS)
def test_a_model_license_is_recognised_however_it_is_set_and_as_no_other_version(name: str) -> None:
    text = MODEL_TEXTS[name]
    for copy in (
        text,
        text.upper(),
        " ".join(text.split()),
        "# LICENSE\n\n" + text.replace("\n", "\r\n").replace("\u201c", '"').replace("\u201d", '"'),
        "**" + text.replace("\n\n", "**\n\n> "),
        re.sub(r"(?m)^(\W*)\d\. ", r"\1* ", text),  # a list without its numbers
    ):
        assert read(copy) == (name,)


@pytest.mark.parametrize(
    ("name", "old", "new", "place"),
    [
        ("llama3.1", "700 million", "7 million", "700|7"),
        ("llama3.1", "700 million", "700 thousand", "thousand|million"),
        ("llama2", "You will not use the Llama Materials", "You will use the Llama Materials", "not"),
        ("qwen-license-2024", "100 million", "1 million", "100|1"),
        ("hyperclova-x-seed", "10 million", "9 million", "10|9"),
        ("deepseek-model-1.0", "irrevocable", "irrevocable for 30 days", "30"),
        ("gemma-tou-2025-03-24", "March 24, 2025", "April 1, 2026", "2026"),
        ("exaone-1.1-nc", "solely for research purposes", "for any purposes, which may not end before I do", "may"),
    ],
)  # fmt: skip
def test_one_changed_number_or_negation_makes_a_text_edited_and_names_the_place(
    name: str, old: str, new: str, place: str
) -> None:
    text = MODEL_TEXTS[name]
    edited = re.sub(re.escape(old), new, " ".join(text.split()), count=1, flags=re.IGNORECASE)
    assert edited != " ".join(text.split())
    file = recognise("LICENSE", edited)
    assert (file.licenses, file.near) == ((), name)
    assert file.difference is not None
    assert re.search(place, file.difference)


def test_a_clause_cut_out_is_missed_and_named() -> None:
    text = MODEL_TEXTS["llama3.1"]
    start = text.index("If you use the Llama Materials or any outputs")
    end = text.index(".", text.index("beginning of any such AI model name", start))
    file = recognise("LICENSE", text[:start] + text[end + 1 :])
    assert (file.licenses, file.near) == ((), "llama3.1")
    assert file.difference is not None
    assert "is missing behind" in file.difference


def test_a_title_with_words_of_its_own_and_a_use_policy_are_not_the_license() -> None:
    own = "\n".join(
        f"The licensor says in clause {n} what he wants and the user does as he is told." for n in range(40)
    )
    for title in ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "Tongyi Qianwen LICENSE AGREEMENT", "Gemma Terms of Use"):
        file = recognise("LICENSE", f"{title}\n\n{own}")
        assert file.licenses == ()
    policy = (
        "Llama 3.2 Acceptable Use Policy\n\nMeta is committed to promoting safe use of its tools, including Llama 3.2, "
    )
    policy += "which is under the Llama 3.2 Community License.\n" + own
    assert recognise("LICENSE", policy).licenses == ()
    assert read(MODEL_TEXTS["llama3.2"] + "\n\n" + policy) == ("llama3.2",)


def test_every_text_that_is_here_or_has_phrases_of_its_own_is_recognised() -> None:
    wrong = []
    for entry in (one for one in builtin().entries.values() if one.recognise or one.id in MODEL_TEXTS):
        ids = read(model_license(entry.id))
        others = {builtin().entries[name].label for name in ids} - {entry.label}
        wrong += [f"{entry.id}: read as {ids}"] if entry.id not in ids or others else []
    assert wrong == []


def test_a_text_that_refers_to_a_license_is_no_copy_of_it() -> None:
    llama = recognise("LICENSE", "This model is under the Llama 3.1 Community License Agreement, see llama.com.")
    assert (llama.licenses, llama.mentions) == ((), ("llama3.1",))
    apache = recognise("LICENSE", "Licensed under the Apache License, Version 2.0. See apache.org/licenses.")
    assert (apache.licenses, apache.mentions) == ((), ("apache-2.0",))
    assert recognise("LICENSE", "All rights reserved, and nothing is said.").mentions == ()


@pytest.mark.parametrize(
    "text",
    ["", "\0" * 1_000_000, "a" * 20_000_000, "word " * 2_000_000, "(" * 3_000_000, "license licence " * 500_000,
     "\n" * 5_000_000 + APACHE, " ".join(_WORDS[7 * n % len(_WORDS)] for n in range(100_000)), (APACHE + MIT) * 50],
    ids=["empty", "zeros", "one word", "words", "brackets", "names", "blank", "shuffled", "many"],
)  # fmt: skip
def test_hostile_megabytes_are_answered_and_prove_nothing(text: str) -> None:
    assert read(text) in ((), ("apache-2.0",), ("apache-2.0", "mit"))
