"""What the licence and notice files of a release hold: the texts that were recognised in each, and the notice lines."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Paper", "Papers", "is_licence_file", "is_notice_file", "is_policy_file"]

_LICENCE = re.compile(r"licen[cs]e|copying|agreement|terms[_ -]of[_ -]use", re.IGNORECASE)
_NOTICE = re.compile(r"notice", re.IGNORECASE)
_POLICY = re.compile(r"(acceptable|prohibited)?[_ -]?use?(age)?[_ -](policy|restrictions)|\baup\b", re.IGNORECASE)
_PLAIN = re.compile(r"(licen[cs]e|copying)(\.(txt|md|rst|text))?", re.IGNORECASE)


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def is_licence_file(name: str) -> bool:
    return bool(_LICENCE.search(_base(name)))


def is_notice_file(name: str) -> bool:
    return bool(_NOTICE.search(_base(name)))


def is_policy_file(name: str) -> bool:
    return bool(_POLICY.search(_base(name)))


@dataclass(frozen=True)
class Paper:
    """One file that is named like a licence.

    ``licences``: ids of the texts that it is a copy of. ``mentions``: ids of texts that it names without being a copy.
    Both empty: nothing was recognised. ``near``: the SPDX id of a standard text that it is like, but not the same as.
    """

    name: str
    licences: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()
    near: str | None = None

    @property
    def principal(self) -> bool:
        """The one file in which a reader looks for the licence of the whole: LICENSE beside the card."""
        return "/" not in self.name and bool(_PLAIN.fullmatch(self.name))


@dataclass(frozen=True)
class Papers:
    """All files of a release that were read. ``notice`` is the text of its notice files, one after the other."""

    licences: tuple[Paper, ...] = ()
    notice: str | None = None

    def holds(self, line: str) -> bool:
        """True where the notice files hold this line; case, spacing and quotation marks do not count."""
        return self.notice is not None and _loose(line) in _loose(self.notice)


def _loose(text: str) -> str:
    return " ".join(re.sub(r"[\"'\u2018\u2019\u201c\u201d`*_>#]", "", text).casefold().split()).rstrip(".")
