r"""What a sentence states as a value: ``so the total is 42``, ``因此 x=3``, and neither a bound nor what is made of it.

A value counts only in the forms below, which are patterns of classes of words: "the (adjective) (quantity) of ... is
42", "there are 42 ...", "we get 42", "Anna needs 42 ...", "42 is the answer". An unknown word stands only where a form
has room for one: what is counted, who has it, what the quantity is of. The letters of the classes: o opening words and
adverbs, s what opens a reason, d articles, D possessives, a adjectives of an answer, r other adjectives, h quantities,
b either of the two, A answer, i is, w pronouns, g and k we obtain, G this gives, v has, l left, f of, p and P other
prepositions, E over, M more, c that, q when, n and y what states nothing, T there is, J it's, L a total of, K to get.
Languages: English, Chinese, French, Spanish, German; simple sentences in Portuguese, Italian, Russian, Japanese and
Korean. Pure text, linear in its length.
"""

from __future__ import annotations

import itertools
import re

from synth.verify.answers.tokens import is_balanced
from synth.verify.answers.units import NO_LABEL
from synth.verify.answers.values import word_list

_LENGTH = 800  # characters of the end of a text in which a sentence is looked for

DENIED = re.compile(r"\b(?:not|cannot|never|neither|nor|no)\b|n['\u2019]t\b", re.IGNORECASE)
TAKEN_BACK = re.compile(
    r"\b(?:wait|oops|hmm+|actually|correction|scratch that|on second thought|my mistake|i mean|"
    r"made (?:a|an) \w*\s?(?:mistake|error)|i was wrong|take (?:that|this|it) back|"
    r"let me (?:re-?\w+|double|check|correct|fix)|(?:that|this)(?: i|['\u2019]| wa)s (?:not|wrong|incorrect|false)|"
    r"(?:can['\u2019]t|cannot) be (?:right|correct|true)|(?:that|this) (?:isn['\u2019]t|can['\u2019]t|cannot))\b",
    re.IGNORECASE,
)
NO_LONGER = re.compile(
    rf"(?:^|[.!?\n\u2013\u2014])\s*(?:not?|however|but|or|sorry|oh|wrong|unfortunately|hold on|on reflection)\b|"
    rf"(?!(?<=\w )wait){TAKEN_BACK.pattern}",
    re.IGNORECASE,
)
RETRACTED = re.compile(
    r",?\s+(?:which|but (?:that|this|it))\s+(?:is|was|would be|cannot be|can't be)\s+(?:\w+ly\s+)?"
    r"(?:wrong|incorrect|impossible|false|absurd|right|too \w+|an? (?:contradiction|mistake|error)|"
    r"not (?:correct|right|possible|valid|allowed|an option))\b|"
    r",?\s+(?:which|but (?:that|this|it))\s+(?:contradicts|violates|exceeds|fails|we (?:reject|discard|exclude)|"
    r"does(?:n't| not) (?:work|satisfy|fit))\b|"
    r",?\s+but (?:we|I) (?:forgot|missed)\b",
    re.IGNORECASE,
)

_CLASSES = {  # a letter, and the words of which it is the class in a pattern
    "o": "consequently accordingly ultimately yes up today currently noch so thus hence therefore then finally now "
    "and here also indeed clearly just simply exactly precisely only overall altogether together both will can "
    "should must still okay equal approximately about roughly us me due donc ainsi alors finalement exactement égal "
    "égale entonces así luego exactamente igual somit folglich daher damit daraus insgesamt genau portanto logo "
    "assim exatamente quindi dunque esattamente значит итак всего поэтому obviously evidently",
    "s": "since because as after by adding dividing multiplying solving simplifying substituting evaluating "
    "combining summing subtracting using counting plugging taking calculating computing expanding factoring comme "
    "puisque après como después nach",
    "d": "the a an this these those its his her their our my your le la les l' un une d' el los las una der die das "
    "ein eine den o os um uma il lo i gli such",
    "a": "final correct right required desired requested needed sought missing exact numerical unique finale cherché "
    "cherchée correcte bonne buscado buscada correcta gesuchte richtige gesamte correto correta corretta",
    "r": "greater larger smaller bigger longer shorter taller older younger higher lower heavier lighter faster "
    "slower first smallest largest greatest biggest highest lowest longest shortest minimal maximal possible "
    "positive real whole combined original initial resulting next common arithmetic geometric surface natural odd "
    "even selling annual monthly weekly daily grand net gross distinct different last new main current second third "
    "fourth fifth sixth seventh eighth ninth tenth two three four five six seven eight nine ten kleinste größte "
    "petit one remaining expected",
    "b": "average mean minimum maximum total prime integer units constant totale",
    "A": "answer réponse respuesta resposta risposta antwort ответ",
    "h": "element midpoint centroid code option choice output endergebnis entier number amount sum difference "
    "product quotient remainder value size length width height depth area volume perimeter circumference radius "
    "diameter distance speed velocity acceleration rate time age weight mass cost price fee salary wage income "
    "earnings profit loss revenue balance payment bill tax discount change savings score grade median mode range "
    "variance probability chance likelihood odds percentage fraction ratio proportion limit integral derivative "
    "determinant rank trace degree slope intercept equation function expression polynomial formula root result "
    "solution term coefficient exponent gcd lcm hcf angle measure side hypotenuse diagonal vertex center point "
    "coordinates intersection position interval set domain matrix vector magnitude temperature force energy density "
    "period digit capacity population rent interest conclusion increase decrease base nombre somme valeur résultat "
    "aire prix périmètre probabilité produit différence longueur vitesse âge número suma valor resultado solución "
    "área precio perímetro probabilidad producto diferencia edad summe zahl wert ergebnis lösung fläche umfang preis "
    "anzahl gesamtzahl flächeninhalt durchschnitt produkt differenz rest wahrscheinlichkeit soma produto diferença "
    "risultato somma valore numero prodotto quantity länge triples deviation line curve norm",
    "i": "is are was were be equals becomes measures est sont es será ist sind lautet beträgt é são è sono vaut fait "
    "равен равна равно =",
    "w": "them nous he she it they we i you c' ce cela on elle ils wir er sie man esto eso him",
    "g": "obtain find conclude see know deduce compute obtient trouve obtenons trouvons obtenemos erhalten",
    "k": "get got have need count",
    "G": "give giving yields leaves leaving make means totals donne gibt da ergibt folgt follows",
    "v": "hold owe has had made pay paid needs take took costs bought buy sold sell run ran weigh receive spent ate "
    "read won scored contain form flew drove swam drank wrote remains tiene tienen cuesta cuestan quedan necesita "
    "necesitan hat haben braucht kostet bleiben reste coûte faut ont produce carry fill cover grow grew visit cook "
    "lift climb jog bike hike fit seat complete finish knit catch build brought built bring burn charge invest print "
    "type watch hire feed pack harvest rent withdraw deposit meet end held cut paie gasta recorre fährt travel walk "
    "collect use spend save eat win plant bake paint pick deliver serve drink write gain earn require remain reach "
    "lasts holds taken gana carries",
    "l": "left remain passed attended own each per every old tall long wide high deep away",
    "f": "of de du des del do dos di von der",
    "p": "upon from to between who satisfying with among zur para pour que qui",
    "P": "in for at on during across dans en por em nel pro",
    "c": "that which",
    "q": "when",
    "n": "too partial intermediate previous naive tentative extraneous upper ignoring forgetting excluding "
    "neglecting rejecting omitting missed fake not no never cannot neither nor none nobody except than less fewer "
    "before almost nearly twice half double triple thrice times plus minus squared cubed factorial modulo wrong "
    "incorrect false mistaken impossible pi sqrt log ln without out percent under above below until beyond exceeds "
    "reject discard excluded estimated assumed eliminated failed short off check fails contradicts yet initially "
    "originally previously formerly earlier nicht kein keine keinen não non ne pas jamais sin casi presque fast "
    "quase quasi als mehr weniger más moins mais meno più doble doppelte hälfte moitié doppio dobro fois veces mal "
    "vezes volte ohne sans senza не больше меньше более менее running forbidden worst increased decreased",
    "y": "according seems appears leads supposing imagine pretends if unless suppose assume assuming whether might "
    "could would may maybe perhaps probably possibly either or but say said claim think thought believe guess told "
    "doubt while whereas though although wish hope let why how what si wenn peut pourrait podría puede vielleicht "
    "talvez forse ou oder или mistake mistakenly error want case provided whenever once",
    "M": "more",
    "E": "over",
}
_NOT_COUNTED = NO_LABEL - set(word_list("up this is was as and third half gives at over between mod when or if"))
_CLASS_OF = dict.fromkeys(_NOT_COUNTED, "n") | {word: name for name in _CLASSES for word in word_list(_CLASSES[name])}
_OTHER_PROBLEM = (
    r"(?:first|second|third|fourth|fifth|next|last|previous|earlier|other|another|different|similar|related|simpler|"
    r"easier|harder|wrong|modified|analogous|same|sub\w*|opposite|reverse|not|no)\b"
)
_PHRASES = {  # of a class that their words have not
    "K": r"\bto (?:get|obtain|find|give|arrive at)\b",
    "L": r"\ban? (?:\w+ )?(?:total|sum|value|number|maximum|minimum|average|amount|probability|area|volume|length|"
    r"perimeter|distance|profit|cost|price|height|depth|width|radius|diameter|weight|mass|speed|rate|age|score|"
    r"result) of\b",
    "G": r"\b(?:arrives?|ends? up) (?:at|with)\b",
    "o": r"\b(?:en tout|in (?:total|all|conclusion|summary|the end|this case|other words|base (?:10|ten))|from this|"
    r"as (?:a result|required|desired)|(?:it|this|that) (?:means|follows|implies|shows)(?: that)?|all in all|(?:i|"
    r"we) (?:think|believe|conclude|see|find)(?: that|(?= the))|has to|to (?:summarize|conclude|sum up)|(?:to|"
    rf"of|for) (?:the|this|our|your) (?:(?!{_OTHER_PROBLEM})[a-z-]+ ){{0,3}}"
    r"(?:problem|question|equation|exercise|puzzle)|equal to|without loss of generality|given by|"
    r"we (?:want|need|seek)(?:ed)?(?=[.!]?$)|"
    r"of course|step \d{1,2}:|plus(?= petit| grand)|au total|par conséquent|en conclusi[oó]n|en total|"
    r"por (?:lo )?tanto|así que|igual a|égale? à|таким образом|q\.e\.d\.)(?!\w)|=>|[∴⇒→✅✓✔]",
    "T": r"\b(?:there (?:is|are|was|were|will be|exists?|remains?)|il (?:y a|reste|faut)|hay|es (?:gibt|sind|bleiben)|"
    r"gibt es|ci sono|há|son|se necesitan)\b",
    "i": r"\b(?:(?:will|must) be|must equal|results in|(?:is|are) left with|(?:(?:in|de)crease|rise|grow)s?d? by|"
    r"(?:grew|rose) by|can be \w+ in|(?:comes(?: out)?|turns out|amounts|simplifies|reduces|evaluates|works out|"
    r"adds up) to(?: be)?|sind es|is attained and equals|(?:falls|is|are|lies|intersects?|meets?) (?:on|at)|"
    r"est(?: donc)? de|es de)\b",
    "h": r"\b(?:(?:greatest|least|lowest|highest) common \w+|day of the week|what (?:we|you|they) (?:need|want)|"
    r"percent(?:age)? (?:in|de)crease|(?<=the )(?:claim|statement|least|most))\b",
    "s": r"\bdue to\b",
    "y": r"\b(?:as|so) long as\b",
    "n": r"\b(?:at (?:least|most|first)|so far|for now|used to)\b|\b\w+n['’]t\b",
    "l": r"\b(?:remaining|combined)$",
    "J": r"\b(?:it|that)['’]s\b",
    "u": r"\b(?:such|ordered|distinct|different) pairs\b",
    "v": r"(?<=s )cost\b",
    "r": r"\b\d+(?:st|nd|rd|th)\b",
    "D": r"\b[^\W\d_]+(?:['’]s\b|s['’](?=\s))",
    "word": r"\b[cld]['’](?=\w)|[^\W\d_\u3040-\u9fff\uac00-\ud7af]+(?:-[^\W\d_]+)*|=",
    "m": r"\d+(?:[.,]\d+)*",
    "x": r"\0+|[∠△]",
    "comma": r",",
    "colon": r":",
    "skip": r"(?<!\S)[-•] (?=[A-Z*])|[\s*`\"'()“²³°$€£¥\\#]+",
    "z": r".",
}
_TOKEN = re.compile("|".join(f"(?P<{name}>{one})" for name, one in _PHRASES.items()), re.IGNORECASE | re.DOTALL)
_OPEN = r"(?:[o,]|s[^y:,]*,|d?[ab]{0,3}[hbA]:|[Pp][dm][^ynr:,]{1,2},|q[xim]*,)*+"
_SUBJECT = (
    r"(?:(?:[dDfc]{0,2}[abdhor]{0,6}[us]?[abdhr]{0,4}[hbxkv][ab]*|dr|x+m?)(?:[fpcqlPE][^yA]*|[varwo][^nyA]*)?|"
    r"N{1,2}|w|d|c|d?[ab]*A[ab]*)"
)
_LEAD = r"(?:[odL]|(?:d[ab]*[hb])?xi|d[ab]*[hA])*"
_WHO = r"[^nypqcAiTgG:]{0,10}"
_BEFORE = re.compile(  # the total is; there are; we get; this gives; she pays (42); he walks a distance of
    rf"{_OPEN}(?:{_SUBJECT}i:?|i[dDf]*[ab]*[hb]?|J|T|[wP]?o*[gk]c?(?:{_SUBJECT}i|T)?|"
    rf"(?:{_SUBJECT}o*|s[^y,n]{{0,5}})?G(?:[wdNo]p?|p)?|w?o*[vk]|w[^ny:]{{1,12}}K|{_WHO}[vk](?:[abr]*[hb]|L)|"
    rf"[dD]?[abhr]*[hbA][ab]*(?:f[^yA:]*)?:)?{_LEAD}"
)
# Anna has (42 apples)
_COUNTS = re.compile(rf"{_OPEN}(?:{_WHO}[vkG](?:w|N|d[uN]?|[abr]*[hb]|p[vku]|[Ps])?|d[abr]*[us]i){_LEAD}")
# the capital is (Paris)
_TITLE = re.compile(rf"{_OPEN}(?:[dDc][abr]*[hbuN](?:f[^yA]*)?i|[wdc]i|J){_LEAD}")
_ANSWER = re.compile(rf"{_OPEN}[od]?[abo]*")
_OF_ANSWER = re.compile(r"(?:[oa]|,[^yn:]{1,4},|op)*")
_AFTER = re.compile(
    r"[ol]*|l?du|lu|fd[^y:mx]*|sd[ab]*[hbA]|i[do]*(?:d[abdr]*[hbAr]|[abdr]*[hbA]|a)(?:[fpcxlwP][^y:]*)?|"
    r"M?[dabr]*[uhbNv]{1,3}[olM]*(?:i?l[^yn:z,]*|o*i[uarsv][^yn:z,]*|[fvpkcPdE][^y:z,]*)?"
)
_COUNTED = re.compile(r"M?[dabr]*[ubhNv]")  # what is counted, or a unit
_EAST = re.compile(r"[\u3040-\u9fff\uac00-\ud7af]")
_EAST_OPEN = (
    r"(?:所以|因此|故|综上(?:所述)?|总共?|一共|解得|可得|于是|最后|よって|したがって|ゆえに|つまり|따라서|[\s,，、])*"
)
_EAST_STATES = re.compile(
    rf"(?!.*(?:最多|可能|大概|大约|也许|说|认为|觉得|猜))(?:{_EAST_OPEN}|"
    r"[^不非没无未错误若如假或比超倍至半]*?(?:是|为|有|(?<=等)于|得|出|要|需|即|共|下|距|答案|每小时|还剩|"
    r"[花走付用赚买卖]了?|(?<!\d)到|[:：=]|は|은|는))[\s*`“$¥(]*"
)
_EAST_LEAVES = re.compile(
    r"(?!\s?%?(?:[万亿百十的倍のよ보多余几]|年前|平方$|千(?![米克瓦])|"
    r".{0,2}以(?!及)|.{0,2}(?:이상|이하|초과|미만|左右|未満|아닙|아니|では)))"
    r"[^\d\0,，=<>+^?？吗倍错误或和]*"
)
SEGMENT = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|(?<!\\)\$(?P<b>(?:[^$\\]|\\.)+)\$(?!\d)|\\\((?P<c>(?:[^\\]|"
    r"\\(?!\)))+)\\\)|\\\[(?P<d>(?:[^\\]|\\(?!\]))+)\\\]",
    re.DOTALL,
)
BOLD = re.compile(r"(?<![A-Za-z0-9)\]])\*\*([^*\n]{1,200})\*\*|`([^`\n]{1,200})`|__([^_\n]{1,200})__")
_JOIN = re.compile(r"\s*(?:,|;|\band\b|\bor\b|,\s*(?:and|or)\b)\s*", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.^\\])(?P<money>\\?[$€£¥]\s?)?[-\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?"
    r"(?![A-Za-z0-9_^])"
)
_UNIT = re.compile(
    r"\s?(?P<unit>%|percent|[cmkµ]?m[²³]?|[mkµ]?g|m?[lL]|k?[JWVNA]|[mnµ]?s|ft|lbs?|mph|km/h|m/s|min|hours?|minutes?|"
    r"seconds?|days?|weeks?|months?|years?|(?:centi|kilo|milli)?(?:met(?:er|re)|gram|lit(?:er|re))s?|tons?|tonnes?|"
    r"miles?|feet|foot|inch(?:es)?|yards?|pounds?|ounces?|gallons?|dollars?|cents?|euros?|degrees?|"
    r"thousand|million|billion|trillion|dozen)(?![\w^/²³])"
)
_WHY = re.compile(
    r",?\s+(?:because|since|as(?! an? )|attained|achieved|reached|for (?:all|any|every)|so that|given that|"
    r"and (?:we|this|so))\b|,?\s+(?:which|where)\b|(?:,\s+(?:and\s+)?|\s\()not\s+(?=[\d$\0*-])[^,]{1,40}$|"
    r",?\s+(?:rather than|instead of)\b"
)
_ASIDE = re.compile(r"\s\([^()]{1,40}\)$")
_OF_UNKNOWNS = re.compile(
    r"(?<![A-Za-z])(?:\d\s*)?[A-Za-z](?![A-Za-z(])\s*[-\u2212*/^|\u00b2\u00b3\u00b7]|\d\s*[A-Za-z](?![A-Za-z])|\|\s*[a-z]\s*\|"
)
_SIDE = re.compile(
    r"(?:[\w^|/().!]+\s*[-+*/\u00b7\u00d7\u2212]\s*)+[\w^|/().!\u00b2\u00b3]+\s*$|(?<!\w)[\d!]+\s*$|(?<!\w)\w[\^\u00b2\u00b3]\d?\s*$|\d\w\s*$"
)
_SUM = re.compile(r"(?<!\w)\d+(?:\s?(?:[-+*/\u00d7\u00f7]|plus|minus|times|divided by|multiplied by)\s?\d+){1,8}(?!\w)")
_SENTENCE_END = re.compile(
    r"(?<=[.!?])\)?\s+(?=[^\d\s])|;\s+(?=it\b)|。|\n|\\n(?=[A-Z])|,?\s+(?=but (?:the|it|this|we)\b)|"
    r",\s+and\s+(?=(?:the|we|so|thus|hence|therefore)\b)|"
    r",\s+(?=(?:so|thus|hence|therefore)\b)|,\s+which\s(?=(?:gives|leaves|makes|means)\b)|"
    r"\s(?=(?:So|Thus|Therefore|Hence)\b)"
)
_COURTESY = re.compile(r"\W*(?:I hope|hope|let me know|feel free|(?:so |and )?we are done|done)\b", re.IGNORECASE)
_PAIR = re.compile(
    r"\s([(\[{][^()\[\]{}$]{1,80}[)\]}]|\d+:\d+|(?=.*[+*/^-])(?:(?![A-Za-z]{2})[\w+*/^().√π -]){3,80}?)\.?$"
)
_IS = re.compile(r"(?<!hope it )\b(?:is|are|was|will be|falls on)\s+(?:an?\s(?=[A-Z]))?([^.!?,;]{1,60})[.!]?\s*$")


def _classes(text: str) -> str:
    """A letter for each word and sign of a text, see `_CLASSES`. u: unknown, N: a name, x: a symbol, z: other signs."""
    return "".join(_class(match) for match in _TOKEN.finditer(text))


def _class(token: re.Match[str]) -> str:
    word, name = token[0], token.lastgroup or "z"
    if name != "word":
        return {"comma": ",", "colon": ":", "skip": ""}.get(name, name)
    lowered = word.lower().replace("\u2019", "'").rpartition("-")[2]
    bases = [lowered] + [lowered.removesuffix(end) for end in ("s", "d", "es", "ed") if len(lowered) > len(end) + 2]
    word_class = next((_CLASS_OF[base] for base in bases if base in _CLASS_OF), None)
    if word_class and not (len(word) == 1 and word not in "aAIàéèoO="):
        return word_class
    if re.fullmatch(r"[a-z]{3,}(?:ed|est)", word):
        return "r"  # the shaded area, the tallest
    if re.fullmatch(r"[A-Za-z][a-z]{2,}ing", word):
        return "s"
    return "x" if len(word) == 1 or (len(word) < 4 and word.isupper()) else "N" if word[0].isupper() else "u"


def introduces_answer(before: str, between: str) -> bool:
    """Whether the words before "answer" and those between it and its "is" leave it the answer of the response."""
    if _EAST.search(before):
        return not re.search(r"[不非没若如假或错误说猜]|要是|可能|大概|认为|觉得", before)
    return bool(_ANSWER.fullmatch(_classes(before)) and _OF_ANSWER.fullmatch(_classes(between)))


def is_stated(before: str, after: str, *, is_word: bool = False) -> bool:
    """Whether a sentence states a value, an equation or a word between two parts of it."""
    return (_leads(before, after) or (is_word and _TITLE.fullmatch(_classes(before)) is not None)) and _leaves(after)


def _leads(before: str, after: str) -> bool:
    if _EAST.search(before):
        return _EAST_STATES.fullmatch(before) is not None
    for _ in range(4):
        head = before.rstrip(" *$")
        side = _SIDE.search(head[:-1]) if head.endswith("=") else None
        if side is None:
            break
        if "=" not in head[: side.start()] and _OF_UNKNOWNS.search(side[0]):
            return False  # n^2 = 24
        before = before[: side.start()] + "\0 =" if "=" not in head[: side.start()] else head[: side.start()]
    words = _classes(_SUM.sub("\0", before))
    is_counted = before[-1:] in "$€£¥" or _COUNTED.match(_classes(after))
    return bool(_BEFORE.fullmatch(words) or (is_counted and _COUNTS.fullmatch(words)))


def _leaves(after: str) -> bool:
    """Whether what follows a value in its sentence leaves it as it is: the end, a noun, "is the answer"."""
    after = _WHY.split(after, maxsplit=1)[0].rstrip(" .!*`。")
    if (aside := _ASIDE.search(after)) and not {"n", "y", "M"} & set(_classes(aside[0])):
        after = after[: aside.start()]
    if _EAST.search(after):
        return _EAST_LEAVES.fullmatch(after) is not None
    return _AFTER.fullmatch(_classes(after)) is not None


def stated(text: str) -> str | None:
    """The formula or number that the last sentence states; without one, the words behind its "is"."""
    if len(text) > _LENGTH:
        text = text[-_LENGTH:]
        if len(re.findall(r"(?<!\\)\$", text)) % 2:
            text = text.partition("$")[2]  # of a formula that was cut
    text = text.replace("$^2$", "²").replace("$^3$", "³")
    text = BOLD.sub(emphasized, text.strip())
    blanked = SEGMENT.sub(lambda match: "\0" * len(match[0]), text)
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(blanked)), len(text)]
    sentences = [text[start:end].rstrip(" \n。") for start, end in itertools.pairwise(ends)]
    sentences = [sentence for sentence in sentences if re.search(r"\w", sentence)]
    while len(sentences) > 1 and _COURTESY.match(sentences[-1]):
        sentences.pop()
    sentence = sentences[-1] if sentences else ""
    plain, values = _values(sentence)
    pair = _PAIR.search(sentence)
    if pair and _BEFORE.fullmatch(_classes(sentence[: pair.start(1)])):
        return pair[1]
    if values:
        return _of_clause(plain, values)
    if any(char.isdigit() for char in plain):
        return None  # 17^12
    words = _IS.search(sentence)
    return words[1] if words and _TITLE.fullmatch(_classes(sentence[: words.start(1)])) else None


def _values(sentence: str) -> tuple[str, list[re.Match[str]]]:
    """(a sentence with its formulas blanked, its formulas and the numbers outside of them). A letter is no value."""
    segments = list(SEGMENT.finditer(sentence))
    plain = sentence
    for match in segments:
        formula = inside(match)
        blank = formula if len(formula) == 1 and formula.isalpha() else "\0"
        plain = plain[: match.start()] + blank.center(len(match[0])) + plain[match.end() :]
    values = [match for match in segments if not plain[match.start() : match.end()].strip().isalpha()]
    values += _NUMBER.finditer(plain)
    return plain, sorted(values, key=lambda match: match.start()) or segments[-1:]


def _of_clause(plain: str, values: list[re.Match[str]]) -> str | None:
    """The last value of the main clause, or the one before it, where that is stated."""
    why = _WHY.search(plain, values[0].end())
    if RETRACTED.search(plain, values[0].end()):
        return None
    values = [match for match in values if why is None or match.end() <= why.start()]
    for last in range(len(values) - 1, max(-1, len(values) - 3), -1):
        value = first = values[last]
        formula = _formula(value)
        for other in reversed(values[:last]):
            if (joint := _JOIN.fullmatch(plain, other.end(), first.start())) is None:
                break
            first, formula = other, _formula(other) + _joined(joint) + formula
        unit = _UNIT.match(plain, value.end())
        has_unit = unit["unit"] not in ("%", "percent") if unit else value.re is _NUMBER and value["money"]
        after = ("units" if has_unit else "") + plain[(unit or value).end() :]
        if is_stated(plain[: first.start()], after):
            end = formula.rpartition("=")[2].strip()
            if formula.count("=") > 1 and first is value and "," not in formula and is_balanced(end):
                formula = end  # of a computation
            return formula + (f" \\text{{ {unit['unit']}}}" if unit else "")
    return None


def _formula(value: re.Match[str]) -> str:
    return value[0] if value.re is _NUMBER else inside(value)


def _joined(joint: re.Match[str]) -> str:
    """What stands between two formulas as mathematics."""
    return " \\text{ or } " if "or" in joint[0].lower() else ", "


def formulas(clause: str) -> str | None:
    """The formula that a clause begins with; several joined by commas, `and` or `or` are one."""
    first = SEGMENT.search(clause)
    if first is None:
        return None
    before = clause[: first.start()]
    if not _leads(before, ""):
        return None
    joined = inside(first)
    at, parts = first.end(), 1
    while (joint := _JOIN.match(clause, at)) and (more := SEGMENT.match(clause, joint.end())):
        joined += _joined(joint) + inside(more)
        at, parts = more.end(), parts + 1
    if parts > 1:
        return joined
    after = clause[at:].partition("\n")[0]
    unit = re.match(r"\s*(%|[A-Za-z]+(?:\s+[A-Za-z]+)?(?:\^\d|[²³])?)\s*(?:\.|$)", after)
    if not unit and not _leaves(after):
        return None
    money = before.rstrip()[-1:] in ("$", "€", "£", "¥")
    return (before.rstrip()[-1:] if money else "") + joined + (f" \\text{{ {unit[1]}}}" if unit else "")


def last_clause(text: str) -> str:
    return re.split(r"[.!?。\n]\s*", text)[-1]


def emphasized(match: re.Match[str]) -> str:
    """What a match of `BOLD` holds."""
    return match[1] or match[2] or match[3]


def inside(match: re.Match[str]) -> str:
    """What a match of `SEGMENT` holds."""
    return next(group for group in match.groups() if group is not None).strip()
