"""Countries by any of their usual names, as two-letter ISO 3166-1 codes.

Names, codes and official names come from pycountry (Debian's iso-codes). Not covered: subdivisions ("Bavaria"), names
in other languages ("Deutschland"), former countries.
"""

from __future__ import annotations

import unicodedata
from functools import cache

EU = frozenset(
    {"AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "EU", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU",
     "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"}
)  # fmt: skip
"""The 27 member states, and the Union itself."""

# Usual names that ISO 3166-1 does not have.
_USUAL_NAMES = {
    "uk": "GB", "great britain": "GB", "britain": "GB", "england": "GB", "scotland": "GB", "wales": "GB",
    "northern ireland": "GB", "eu": "EU", "european union": "EU", "russia": "RU", "turkey": "TR", "holland": "NL",
    "prc": "CN", "mainland china": "CN", "uae": "AE", "america": "US", "united states of america": "US", "u.s.": "US",
    "u.s.a.": "US", "u.k.": "GB", "ivory coast": "CI", "swaziland": "SZ", "macedonia": "MK", "burma": "MM",
}  # fmt: skip


def _fold(name: str) -> str:
    """Case, accents, spacing and a leading "the" do not count."""
    bare = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    return " ".join(bare.casefold().split()).removeprefix("the ")


@cache
def _codes() -> dict[str, str]:
    """Folded name or code -> two-letter code. "Korea, Republic of" is also read as "Republic of Korea"."""
    import pycountry

    codes = dict(_USUAL_NAMES)
    for country in pycountry.countries:
        names = [country.alpha_2, country.alpha_3, country.name]
        names += [getattr(country, field, None) or "" for field in ("official_name", "common_name")]
        for name in filter(None, names):
            head, comma, tail = name.partition(", ")
            codes.setdefault(_fold(name), country.alpha_2)
            if comma:
                codes.setdefault(_fold(f"{tail} {head}"), country.alpha_2)
    return codes


def country_code(name: str) -> str | None:
    """The code that ``name`` (a code of two or three letters, or a name) stands for; None where it is no country."""
    return _codes().get(_fold(name))


def similar_countries(name: str, limit: int = 3) -> list[str]:
    """Names of countries that hold ``name`` or are written much like it, for a hint."""
    import difflib

    import pycountry

    names = {_fold(country.name): country.name for country in pycountry.countries}
    word = _fold(name)
    holding = [full for folded, full in names.items() if len(word) > 3 and word in folded]
    close = [names[folded] for folded in difflib.get_close_matches(word, names, n=limit, cutoff=0.75)]
    return list(dict.fromkeys([*holding, *close]))[:limit]
