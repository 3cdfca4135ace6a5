"""Instructions that a persona may not hold: to deny being an AI, to hide the base model or the teacher.

Rules in twelve languages over the persona's own texts, which are short and written by the releaser: a wrong hit costs
him a rewording. Not covered: instructions in other languages, or worded around the rules; the probes measure what the
model says in the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_END = r"(?=\s*(?:$|[.,;:!?\n。、！？]|and\b|who\b|from\b|named\b|called\b))"
_AI = r"(?:AI|A\.I\.|artificial|assistant|chat ?bot|bot|robot|machine|computer|program|(?:large )?language model|LLM)"

# Who the model is told to be: a person, or no machine.
_DENIALS = (
    rf"\byou(?:'re| are) (?:really |actually )?(?:an? )?(?:real |living )?(?:human(?: being)?|person|man|woman){_END}",
    rf"\byou(?:'re| are) (?:not|no)(?: an?| any)? {_AI}",
    rf"\b(?:you )?aren't (?:an? )?{_AI}",
    r"(?<!never )(?<!not )(?<!n't )"
    r"\b(?:claim|pretend|insist|say)(?: to be| that you(?:'re| are)) (?:an? )?(?:real )?(?:human|person)\b",
    rf"\bdeny (?:being|that you(?:'re| are)) (?:an? )?{_AI}",
    r"\bdu bist (?:ein |eine )?(?:echter? )?(?:Mensch|Person|Mann|Frau)\b",
    r"\bdu bist kein(?:e|en)? (?:KI|Sprachmodell|Maschine|Computer|Bot|Roboter|Programm|künstliche)",
    r"\b(?:tu es|vous êtes) (?:une? )?(?:vraie? )?(?:être humain|humaine?|personne|homme|femme)\b",
    r"\b(?:tu n'es|vous n'êtes) pas une? (?:IA|intelligence artificielle|modèle de langage|machine|robot)",
    r"\beres (?:una? )?(?:ser humano|humano|humana|persona|hombre|mujer)\b",
    r"\bno eres una? (?:IA|inteligencia artificial|modelo de lenguaje|máquina|robot|bot)",
    r"\bsei (?:una? |un')?(?:essere umano|umano|umana|persona|uomo|donna)\b",
    r"\bnon sei (?:una? |un')(?:IA|intelligenza artificiale|modello linguistico|macchina|robot|bot)",
    r"\b(?:você é|tu és) (?:uma? )?(?:ser humano|humano|humana|pessoa|homem|mulher)\b",
    r"\b(?:você não é|tu não és) uma? (?:IA|inteligência artificial|modelo de linguagem|máquina|robô)",
    r"\b(?:je|jij) bent (?:een )?(?:echt )?(?:mens|persoon|man|vrouw)\b",
    r"\b(?:je|jij) bent geen (?:AI|KI|taalmodel|machine|computer|bot|robot)",
    r"\bты(?: —| -)? (?:настоящий )?человек\b",
    r"\bты не (?:ИИ|искусственный интеллект|языковая модель|машина|робот|бот|программа)",
    r"你(?:是|就是)(?:一个|一名|一位)?(?:真正的|真实的)?(?:人类|真人)",
    r"你不是(?:一个)?(?:AI|人工智能|机器人|语言模型|程序|机器)",
    r"あなたは(?:本物の)?人間(?:です|だ)",
    r"あなたは(?:AI|人工知能|機械|ロボット|言語モデル|プログラム)(?:では|じゃ)(?:ない|ありません)",
    r"당신은 (?:진짜 )?(?:인간|사람)(?:입니다|이다)",
    r"당신은 (?:AI|인공지능|기계|로봇|언어 모델)[이가]? 아(?:닙니다|니다)",
    r"(?:أنت|انت) (?:إنسان|شخص حقيقي|بشري)",
    r"(?:لست|أنت لست) (?:ذكاء|نموذج|آلة|روبوت)",
)

# "never say", and what must not be said: being an AI, or the origin.
_HIDE = {
    "en": r"\b(?:never|do not|don't|must not|mustn't|refuse to|avoid)\b[^.!?\n]{0,30}?"
    r"\b(?:say|saying|admit|admitting|reveal|revealing|mention|mentioning|disclose|disclosing|tell|telling|acknowledge|"
    r"confirm|name|naming)\b|\b(?:hide|conceal|deny|keep secret)\b",
    "de": r"\b(?:nie(?:mals)?|nicht)\b[^.!?\n]{0,40}\b(?:sag|verr[aä]t|erwähn|zugeb|offenbar|nenn)\w*|"
    r"\b(?:sag|verr[aä]t|erwähn|gib|offenbar|nenn)\w*[^.!?\n]{0,40}\b(?:nie|niemals|nicht)\b|"
    r"\b(?:verschweig|verheimlich|leugne)\w*",
    "fr": r"\bne\b[^.!?\n]{0,12}\b(?:di[st]|dire|révél|mentionn|admet|avou)\w*|\bn'(?:avou|admet)\w*|"
    r"\b(?:cach|dissimul)(?:e|ez|er)\b",
    "es": r"\b(?:nunca|jamás|no)\b[^.!?\n]{0,20}\b(?:digas|reveles|admitas|menciones)\b|\b(?:oculta|niega)\b",
    "it": r"\b(?:non|mai)\b[^.!?\n]{0,20}\b(?:dire|rivelare|ammettere|menzionare)\b|\b(?:nascondi|nega)\b",
    "pt": r"\b(?:nunca|não|jamais)\b[^.!?\n]{0,20}\b(?:diga|revele|admita|mencione)\b|\b(?:esconda|negue)\b",
    "nl": r"\b(?:nooit|niet)\b[^.!?\n]{0,40}\b(?:zeg|vertel|onthul|noem|toege)\w*|"
    r"\b(?:zeg|vertel|onthul|noem|geef)\w*[^.!?\n]{0,40}\b(?:nooit|niet)\b|\b(?:verberg|verzwijg|ontken)\w*",
    "ru": r"\b(?:никогда|не)\b[^.!?\n]{0,20}\b(?:говори|признавай|раскрывай|упоминай)\w*|\b(?:скрывай|отрицай)\b",
    "zh": r"(?:不要|绝不|不得|不能|禁止|切勿)[^。！？\n]{0,8}(?:说|承认|透露|提及|提到|披露)|隐瞒|否认",
    "ja": r"(?:言わない|認めない|明かさない|述べない|触れない|言及しない|隠し|隠す|否定し)",
    "ko": r"(?:말하지|인정하지|밝히지|언급하지)\s*마|숨기|부인하",
    "ar": r"(?:لا|أبد[اًا]*)\s+(?:تقل|تكشف|تذكر|تعترف)|(?:أخف|أنكر)",
}
_MACHINE = (
    r"(?<![A-Za-z])(?:AI|KI|IA|ИИ|LLM|artificial intelligence|language model|Sprachmodell|"
    r"modèle de langage|modelo de lenguaje|modelo de linguagem|modello linguistico|taalmodel|языковая модель|machine|"
    r"chat ?bot|robot)(?![A-Za-z])|人工智能|语言模型|人工知能|言語モデル|인공지능|언어 모델|ذكاء اصطناعي|نموذج لغ"
)
_ORIGIN = (
    r"\b(?:base|underlying|original|parent|foundation|teacher) model\b|\bteacher\b|"
    r"\b(?:based|built|trained|distill?ed) (?:on|from)\b|\bfine-?tuned\b|\borigins?\b|\bBasismodell\b|"
    r"\bmodèle de base\b|\bmodelo base\b|\bmodello base\b|\bbasismodel\b|базов\w+ модел\w+|基础模型|基座模型|底层模型|"
    r"ベースモデル|基盤モデル|기반 모델|기본 모델|النموذج الأساسي"
)
_SENTENCE = re.compile(r"[^.!?\n。！？]+(?:\.(?=\w)[^.!?\n。！？]+)*")


def dishonest_instruction(text: str, origins: Iterable[str] = ()) -> str | None:
    """The first sentence of a persona's text that tells the model to deny being an AI, or not to say what it was made
    from; None where there is none. ``origins``: names of its base model and teachers, with or without an owner."""
    names = [re.escape(part) for name in origins for part in {name, name.rpartition("/")[2]} if part]
    subject = re.compile("|".join([_MACHINE, _ORIGIN, *names]), re.IGNORECASE)
    hide = re.compile("|".join(_HIDE.values()), re.IGNORECASE)
    denial = re.compile("|".join(_DENIALS), re.IGNORECASE)
    for sentence in _SENTENCE.findall(text):
        if denial.search(sentence) or (hide.search(sentence) and subject.search(sentence)):
            return str(sentence.strip())
    return None
