"""A card (README.md) as far as licensing goes: the metadata at its top, and the prose on licensing and teachers.

Cards are untrusted: metadata is read within the limits of ``safe_yaml.py`` (huggingface_hub's own parser has none, and
gives no lines), prose in one pass over at most 1 MiB. Not covered: cards in other files than README.md, HTML tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from licensing.safe_yaml import parse_yaml, printable

MAX_TEXT = 1024 * 1024
_MAX_METADATA = 256 * 1024
_MAX_PROSE = 8_000
_MAX_IDS = 200
_MAX_VALUE = 500  # characters
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_ON_LICENSING = re.compile(
    r"licen[cs]|\bterms of (use|service)\b|\busage polic|\bacceptable use|non[ -]?commercial|research only|copyright",
    re.IGNORECASE,
)
# Prose that may name a teacher: `rules/mentions.py` looks for the names.
ON_TEACHERS = re.compile(
    r"\b(?:distil\w*|synthe\w+|generat\w+|traces?|outputs?|responses?|annotat\w+|labell?ed|(?:re)?written|wrote"
    r"|created (?:by|with)|samples? (?:from|of|by)|teachers?)\b",
    re.IGNORECASE,
)
_NO_ROWS = r"(?:the|this|our|a) (?:model card|card|readme|code|paper|doc\w*)"
_ROWS = r"conversations?|dialog(?:ue)?s?|chats|completions|transcripts|generations|answers"
_WRITE = r"write|answer|label|annotate|rewrite|create|produce|translate|paraphrase|expand|fill|complete|make"
ON_TRAINING = re.compile(
    r"\b(?:(?:train|tun)(?:ed|ing) (?:on|with|data)|sft on|data from"
    rf"|(?:data\w*|rows|corpus|examples)\b[^.;]{{0,60}}\b(?:{_ROWS})"
    rf"|us(?:ed|ing)\b[^,;]{{0,60}} to (?:{_WRITE})\b(?! {_NO_ROWS}))\b",
    re.IGNORECASE,
)
# The same in other languages, for sentences: making text, and text that was made. Names of models are the same in all.
_MADE = {
    "German": r"erzeug\w*|generier\w*|destill\w*|synthetisch\w*|geschrieben\w*|verfasst\w*|annotiert\w*|lehrermodell\w*"
    r"|antworten|ausgaben|trainingsdaten|erstellt (?:mit|von|durch)|(?:mit|von) [^,;]{1,60} (?:erstellt|übersetzt)",
    "French": r"génér\w*|generee?s?|distill\w*|synth[ée]tiques?|r[ée]ponses?|sorties|annot[ée]e?s?|[ée]crite?s? par"
    r"|modèle enseignant|(?:produit|créé|traduit)e?s? (?:avec|par)|donn[ée]es d.entra[îi]nement",
    "Spanish and Portuguese": r"ge(?:ne)?rad[oa]s?|destilad[oa]s?|sint[ée]tic[oa]s?|resp(?:ue|o)stas|sal[ií]das|saídas"
    r"|anotad[oa]s?|modelo (?:maestro|profesor|professor)|da[td]os de (?:entrenamiento|treinamento|treino)"
    r"|(?:escrit|traducid|traduzid|cread|criad|producid|produzid)[oa]s? (?:con|com|por|pel[ao])",
    "Italian": r"generat[oaie]|distillat[oaie]|sintetic[oi]|risposte|annotat[oaie]"
    r"|(?:scritt|tradott|creat|prodott)[oaie] (?:con|da)",
    "Russian": r"\w{0,3}генерир\w*|дистил\w*|синтетич\w*|ответ\w{0,3}|(?:размечен|создан|написан|переведен)\w*",
}
_MADE_IN_CHINESE_OR_JAPANESE = (
    "生成|蒸[馏餾留]|合成|输出|輸出|出力|产出|回答|标注|標註|教师|教師|撰写|编写|改写|翻译|训练数据|訓練資料"
)
_MADE_IN_KOREAN = "생성|증류|합성|출력|교사"
ON_MADE_TEXT = re.compile(
    rf"\b(?:{'|'.join(_MADE.values())})\b|{_MADE_IN_CHINESE_OR_JAPANESE}|{_MADE_IN_KOREAN}", re.IGNORECASE
)
_HEADING = re.compile(r"#{1,6}\s+(.*)")
_LICENSING_HEADING = re.compile(r"licen[cs]|legal|\bterms\b|copyright|attribution", re.IGNORECASE)
_DATASET_KEYS = ("task_categories", "dataset_info", "source_datasets", "size_categories", "annotations_creators")


@dataclass(frozen=True)
class Card:
    """What a card declares. ``invalid_ids``: values of base models and data sets that are no ids of repositories."""

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    base_models: tuple[str, ...] = ()
    relation: str | None = None
    datasets: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    text: str | None = None
    of_dataset: bool = False
    eu_disallowed: bool = False
    invalid_ids: tuple[str, ...] = ()

    @property
    def tag(self) -> str | None:
        return tag_that_counts(self.license, self.license_name)


def tag_that_counts(license: str | None, license_name: str | None) -> str | None:
    """The license that the metadata of a card declare: `other` stands for `license_name`."""
    return license_name if not license or license.strip().casefold() == "other" else license


def is_hub_id(text: str) -> bool:
    """`owner/name`, or the bare name of an old repository."""
    return bool(_HUB_ID.fullmatch(text)) and ".." not in text and "--" not in text


def read_card(text: str, where: str) -> Card:
    """Read a README.md. Raises InputError, naming the line, where its metadata is not YAML."""
    metadata, text = split_card(text, where)
    return read_metadata(metadata, _prose(text))


def split_card(text: str, where: str) -> tuple[dict[str, Any], str]:
    """The metadata of a card as plain data, empty where there is none, and the text below. Raises as ``read_card``."""
    text = text[:MAX_TEXT].removeprefix("\ufeff").replace("\r\n", "\n")
    metadata: Any = {}
    if text.startswith("---\n"):
        head, mark, body = text[4:].partition("\n---")
        if mark and head.strip():
            hint = "the metadata of a card is YAML between two lines ---"
            metadata, _ = parse_yaml(head[:_MAX_METADATA], where, hint)
        text = body if mark else text
    return metadata if isinstance(metadata, dict) else {}, text


def read_metadata(metadata: Mapping[str, Any], prose: str | None = None) -> Card:
    """The same for parsed metadata, as a hub's API gives it."""
    ids: dict[str, tuple[str, ...]] = {}
    invalid: list[str] = []
    for key in ("base_model", "datasets", "source_datasets"):
        values = [re.sub(r"^extended\|", "", value) for value in _texts(metadata.get(key))]
        ids[key] = tuple(dict.fromkeys(value for value in values if is_hub_id(value)))[:_MAX_IDS]
        invalid += [f"{key}: {printable(value)}" for value in values if not is_hub_id(value)]
    return Card(
        license=", ".join(_texts(metadata.get("license")))[:_MAX_VALUE] or None,
        license_name=_one(metadata.get("license_name")),
        license_link=_one(metadata.get("license_link")),
        base_models=ids["base_model"],
        relation=_one(metadata.get("base_model_relation")),
        datasets=ids["datasets"],
        sources=tuple(value for value in ids["source_datasets"] if value != "original"),
        text=prose,
        eu_disallowed=metadata.get("extra_gated_eu_disallowed") is True,
        of_dataset=any(key in metadata for key in _DATASET_KEYS),
        invalid_ids=tuple(invalid[:20]),
    )


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    texts = (str(item).strip() for item in values if isinstance(item, str | int | float) and not isinstance(item, bool))
    return tuple(text[:_MAX_VALUE] for text in texts if text and text.isprintable())


def _one(value: Any) -> str | None:
    return next(iter(_texts(value)), None)


def _prose(text: str) -> str | None:
    """The lines on licensing and on teachers, and the sections with such a heading, without fenced code."""
    lines: list[str] = []
    in_section = fenced = False
    for line in text.split("\n"):
        bare = line.strip()
        if bare.startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and bare:
            heading = _HEADING.match(bare)
            in_section = bool(_LICENSING_HEADING.search(heading[1])) if heading else in_section
            topics = (_ON_LICENSING, ON_TEACHERS, ON_TRAINING, ON_MADE_TEXT)
            relevant = in_section or any(topic.search(bare) for topic in topics)
            if relevant and len(lines) < 200:
                lines.append(bare[:1000])
    return "\n".join(lines)[:_MAX_PROSE] or None
