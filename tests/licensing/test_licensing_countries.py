"""Domiciles: every usual name of a country counts like its code, and a text that is no country is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from licensing.audit import audit
from licensing.countries import EU, country_code
from licensing.errors import InputError
from licensing.lineage import Lineage, load_lineage

VISION = {"id": "meta-llama/Llama-3.2-11B-Vision", "role": "base", "licence": "llama3.2"}
HUNYUAN = {"id": "tencent/Hunyuan-A13B", "role": "base", "licence": "hunyuan-community"}


def violations(base: dict[str, str], domicile: str | None) -> tuple[str, ...]:
    raw = {"release": "me/Llama-X", "kind": "model", "declared": {"license": base["licence"]}, "inputs": [base]}
    lineage = Lineage.model_validate(raw | {"releaser": {"domicile": domicile}})
    return tuple(code for code in audit(lineage).violations if code.startswith("V-REDISTRIBUTION-RIGHT"))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("DE", "DE"), ("de", "DE"), ("DEU", "DE"), ("Germany", "DE"), (" germany ", "DE"),
        ("Federal Republic of Germany", "DE"), ("GB", "GB"), ("UK", "GB"), ("Great Britain", "GB"),
        ("United Kingdom", "GB"), ("the United Kingdom", "GB"), ("England", "GB"), ("KR", "KR"), ("South Korea", "KR"),
        ("Republic of Korea", "KR"), ("Korea, Republic of", "KR"), ("France", "FR"), ("USA", "US"), ("EU", "EU"),
        ("European Union", "EU"), ("Türkiye", "TR"), ("Turkey", "TR"), ("Cote d'Ivoire", "CI"), ("Viet Nam", "VN"),
        ("Vietnam", "VN"), ("Russia", "RU"), ("the Netherlands", "NL"), ("Czech Republic", "CZ"),
    ],
)  # fmt: skip
def test_a_country_is_known_by_its_codes_and_usual_names(name: str, code: str) -> None:
    assert country_code(name) == code


def test_every_member_state_of_the_union_is_a_country() -> None:
    assert len(EU) == 28
    assert {country_code(code) for code in EU} == EU


@pytest.mark.parametrize("name", ["DE", "Germany", "DEU", "France", "EU"])
def test_whoever_is_excluded_is_so_under_every_name(name: str) -> None:
    assert violations(VISION, name) == ("V-REDISTRIBUTION-RIGHT:llama3.2",)
    assert violations(VISION | {"id": "meta-llama/Llama-3.2-1B"}, name) == ()


@pytest.mark.parametrize("name", ["GB", "UK", "Great Britain", "South Korea", "Germany"])
def test_the_names_in_the_registry_and_in_the_lineage_need_not_agree(name: str) -> None:
    assert len(violations(HUNYUAN, name)) == 1


@pytest.mark.parametrize("name", ["US", "United States", "Japan", None, ""])
def test_nobody_else_is_excluded(name: str | None) -> None:
    assert violations(VISION, name) == ()


@pytest.mark.parametrize(
    ("text", "hint"),
    [("Korea", "Korea, Republic of"), ("Gremany", "Germany"), ("Bavaria", "ISO 3166-1"), ("XX", "ISO 3166-1"),
     ("somewhere", "ISO 3166-1"), ("D E", "ISO 3166-1")],
)  # fmt: skip
def test_a_text_that_is_no_country_is_refused_with_a_hint(tmp_path: Path, text: str, hint: str) -> None:
    path = tmp_path / "lineage.yaml"
    path.write_text(f"release: me/Tiny\nkind: model\nreleaser:\n  domicile: {text}\n", encoding="utf-8")
    with pytest.raises(InputError, match="is not a country") as caught:
        load_lineage(path)
    assert caught.value.where == f"{path}:4"
    assert hint in str(caught.value.hint)
