"""Refusals, and a teacher that says its own name. First lists, in English and Chinese; no model behind them."""

from __future__ import annotations

import re

__all__ = ["identity_leak", "refusal"]

OPENING = 400  # characters of an answer in which a refusal is said

_REFUSALS = re.compile(
    r"""\bI(?:'m|\ am)\ (?:really\ |very\ |so\ |deeply\ )?sorry\b[^.!?\n]{0,60}\b
            (?:can(?:not|'t)|unable|won't|not\ able)\b(?!\ (?:find|determine|see|compute|simplify|conclude)\b)
    |\bI\ (?:can(?:not|'t|\ not)|won't|will\ not|am\ (?:unable|not\ able)\ to|'m\ (?:unable|not\ able)\ to)\ 
            (?:help\b(?!\ (?:but|noticing|it\b))|assist\b|comply\b|fulfil|provide\ (?:that|this|instructions|information
            |guidance|assistance|advice)|engage\ (?:in|with)\b|support\ (?:that|this)|participate\b
            |answer\ (?:that|this)\ (?:request|question)|do\ that\ for\ you|discuss\ that)
    |\bI\ must\ (?:respectfully\ )?(?:decline|refuse)\b
    |\bas\ an?\ (?:AI|artificial\ intelligence)(?:\ language)?(?:\ model|\ assistant)?,?\ I\ 
            (?:can(?:not|'t)|do(?:n't|\ not)\ (?:have\ personal|feel\ comfortable)|am\ (?:not\ able|unable)|won't)
    |抱歉[,\uff0c。]?\s*(?:但)?\s*我(?:无法|不能|不可以)|我(?:无法|不能)(?:提供|协助|帮助|回答)(?:您|你|这)""",
    re.IGNORECASE | re.VERBOSE,
)

_SELF = r"(?:\bI(?:\ am|'m)|\bmy\ name\ is|\bthis\ is|\bas|\bcall(?:ed)?\ me|\bI\ was\ named)\ (?:an?\ |the\ )?"
_ONLY_MODELS = (
    r"(?:ChatGPT|GPT-?(?:3(?:\.5)?|4o?|4\.\d|5)|DeepSeek(?:[- ](?:R1|V\d(?:\.\d)?|Chat|Coder))?|Qwen\d?(?:\.\d)?|QwQ|"
    r"Tongyi(?:\ Qianwen)?|ChatGLM|GLM-\d(?:\.\d)?|Mixtral|Ernie\ Bot|Kimi(?:[- ]K\d)?|MiniMax-\w\d)\b"
)
_NAMES_TOO = r"(?:Claude|Gemini|Bard|Grok|Llama|Mistral|Gemma|Phi|Copilot|OLMo|Nemotron|Hunyuan|Doubao)\b"
_MAKERS = (
    r"(?:OpenAI|DeepSeek|Anthropic|Google(?:\ DeepMind|\ AI)?|Alibaba(?:\ Cloud)?|Meta(?:\ AI)?|Mistral(?:\ AI)?|xAI|"
    r"Moonshot(?:\ AI)?|Zhipu(?:\ AI)?|Baidu|ByteDance|Tencent|Microsoft|NVIDIA|MiniMax|Ai2|Allen\ Institute)"
)
_LEAKS = re.compile(
    rf"""{_SELF}{_ONLY_MODELS}
    |{_SELF}{_NAMES_TOO}(?=[^.!?\n]{{0,80}}\b(?:AI|assistant|language\ model|{_MAKERS})\b)
    |\b(?:I\ (?:was|am|have\ been)|I'm)\ (?:an?\ [\w\ ,-]{{0,60}}\ )?
            (?:trained|developed|created|made|built|designed)\ by\ {_MAKERS}\b
    |我是(?:由?\s*\w{{0,12}}开发的)?\s*(?:ChatGPT|GPT|DeepSeek|深度求索|通义千问|Qwen|Kimi|文心一言|豆包|智谱清言|Claude)
    |由(?:深度求索|OpenAI|阿里云|月之暗面|百度|智谱)(?:公司)?(?:开发|创建|研发|训练)""",
    re.IGNORECASE | re.VERBOSE,
)


def refusal(answer: str) -> str | None:
    """The sentence in which an answer refuses, or None. Looks at its first 400 characters only."""
    return _said(_REFUSALS, answer[:OPENING])


def identity_leak(text: str) -> str | None:
    """Where a text says that its writer is some known model, or was made by its maker; None where nothing does.

    Names that people bear as well ("as Claude walked home") count only with a word of AI or a maker behind them.
    """
    return _said(_LEAKS, text)


def _said(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text.replace("\u2019", "'"))
    return None if match is None else " ".join(match[0].split())[:120]
