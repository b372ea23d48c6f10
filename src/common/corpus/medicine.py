"""Facts of medicine: the chapter and the block of ICD-10-CM in which a diagnosis stands."""

import re
from collections import defaultdict
from typing import Any, NamedTuple
from xml.parsers import expat

from common.corpus.triples import Candidate, fact, stems, untold, words
from common.errors import UserError
from common.rows import parse_rows
from common.sources import Reader

# Our names of the chapters, and parts of words that give a chapter away beside those of its name. Left out are
# chapter 16, where nearly every description says "newborn", and 20 to 22 (causes of accidents, reasons for a visit,
# provisional codes), which hold circumstances and not conditions.
CHAPTERS = {
    "1": ("infectious", "virus viral bacter infect parasit seps sept fung"),
    "2": ("neoplasms", "carcin tumo malign cancer lymphom leuk sarcom melan benign"),
    "3": ("blood", "hemo anem thromb coag"),
    "4": ("endocrine", "diabet thyro hormon deficien metabol"),
    "5": ("mental", "psych"),
    "6": ("nervous", "neur nerv brain"),
    "7": ("eye", "ocul opti visu retin corn"),
    "8": ("ear", "audit hear otit"),
    "9": ("circulatory", "cardi heart arter ven vasc"),
    "10": ("respiratory", "lung pulm bronch pneum"),
    "11": ("digestive", "gastr stomach intest bowel"),
    "12": ("skin", "derm"),
    "13": ("musculoskeletal", "bone joint arthr musc oste"),
    "14": ("genitourinary", "kidney renal urin"),
    "15": ("pregnancy", "gest matern obstet labo deliv partum postpartum fet placent"),
    "17": ("congenital", "anomal malform absen agenes fet"),
    "18": ("symptoms", "abnorm find elevat"),
    "19": ("injury", "fractur injur wound burn poison disloc contus sprain traum crush foreign frost"),
}
CHAPTER_CAP = 70
MOST_WORDS = 5

# Words in the names of most chapters and blocks: a description may share them with its own.
COMMON = frozenset(words("the and due not certain disease diseases disorder disorders system systems"))
# Words by which a description places what has no place of its own, or leans on its neighbours in the list.
VAGUE = frozenset(
    words("unspecified specified other elsewhere nos nec with without due not and or in as for by status affecting")
)
REST = re.compile(r"^(other|certain|general|sequelae|intraoperative|postprocedural)\b|unspecified", re.IGNORECASE)


class Diagnosis(NamedTuple):
    """A code with its description, and names of the chapter and block that hold it, as the tabular list has them."""

    code: str
    description: str
    chapter: str
    chapter_name: str
    block_name: str


def diagnoses(read: Reader) -> list[dict[str, Any]]:
    """Relations `chapter` (by `CHAPTERS`) and `block` of ICD-10-CM diagnoses; popularity is unknown.

    Taken are codes of three or four characters with a description of at most five words, without brackets or commas,
    none of the words in `VAGUE`, that stands in one block alone. A subject that gives the answer away is left out for
    both relations: see `triples.untold`, where the chapter's short name, and the chapter's and block's names in the
    list, count as names, and `CHAPTERS` lists further parts of words. Of the rest each chapter keeps at most 70.

    A block's name is that of the list without what stands in brackets, ", not elsewhere classified", ", without
    diagnosis", a leading "Diseases of" or "Disorders of" and every "the". A block gets no facts when its name
    then has more than six words, or says that it holds what is left over ("Other", "Certain", "unspecified", ...).
    """
    [(file, content)] = read("simple-icd-10-cm").items()
    blocks = defaultdict(set)
    short = []
    for row in parse_rows(file, _tabular(file, content), _diagnosis):
        blocks[row.description].add(row.block_name)
        if len(row.code) <= len("A00.0") and row.chapter in CHAPTERS and _plain(row.description):
            short.append(row)
    known = {row.code: row for row in short if len(blocks[row.description]) == 1}
    candidates = [
        Candidate(row.code, row.description, CHAPTERS[row.chapter][0], f"{row.chapter_name} {row.block_name}")
        for row in known.values()
    ]
    facts = []
    for code, subject, chapter, _ in untold(candidates, dict(CHAPTERS.values()), COMMON, CHAPTER_CAP):
        facts.append(fact("medicine", "chapter", code, subject, chapter))
        if block := block_name(known[code].block_name):
            facts.append(fact("medicine", "block", code, subject, block))
    return facts


def block_name(description: str) -> str | None:
    """The short name of a block, or none for a block that holds what is left over or needs a long name."""
    name = re.sub(r"\s*[(\[][^)\]]*[)\]]", "", description).strip()
    if REST.search(name):
        return None
    name = re.sub(r", (not elsewhere classified|without diagnosis)$", "", name)
    name = re.sub(r"\bthe ", "", re.sub(r"^(Diseases|Disorders) of ", "", name))
    return name[0].lower() + name[1:] if 0 < len(name.split()) <= 6 else None


def _plain(description: str) -> bool:
    return (
        len(description.split()) <= MOST_WORDS
        and re.fullmatch(r"[^\W\d_][\w' -]*", description) is not None
        and not VAGUE & set(words(description))
        and bool(stems(description, COMMON))
    )


def _diagnosis(row: dict[str, str]) -> Diagnosis:
    if absent := [field for field in Diagnosis._fields if not row.get(field)]:
        raise ValueError(f"no {absent[0]} at code {row.get('code', '')!r}")
    if not re.fullmatch(r"[A-Z][0-9A-Z]{2}(\.[0-9A-Z]{1,4})?", row["code"]):
        raise ValueError(f"{row['code']!r} is no code")
    return Diagnosis(**row)


def _tabular(file: str, content: bytes) -> list[tuple[int, dict[str, str]]]:
    """Every diagnosis of the tabular list with the line where it starts, in order of lines.

    Expat fetches nothing from outside by itself; a document type, without which no entity can be declared, is
    refused. It is used directly because ElementTree keeps no line numbers.
    """
    rows: list[tuple[int, dict[str, str]]] = []
    open_elements: list[tuple[str, int, dict[str, str]]] = []
    pieces: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        open_elements.append((tag, parser.CurrentLineNumber, {}))
        pieces.clear()

    def end(tag: str) -> None:
        _, line, fields = open_elements.pop()
        if tag in ("name", "desc") and open_elements:
            open_elements[-1][2].setdefault(tag, " ".join("".join(pieces).split()))
        if tag == "diag":
            above = {outer: values for outer, _, values in open_elements}
            chapter, section = above.get("chapter", {}), above.get("section", {})
            row = {
                "code": fields.get("name", ""),
                "description": fields.get("desc", ""),
                "chapter": chapter.get("name", ""),
                "chapter_name": chapter.get("desc", ""),
                "block_name": section.get("desc", ""),
            }
            rows.append((line, row))
        pieces.clear()

    def refuse(*_: object) -> None:
        raise UserError(f"{file}: line {parser.CurrentLineNumber}: a document type is not allowed")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = pieces.append
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise UserError(f"{file}: not XML ({error})") from error
    return sorted(rows, key=lambda row: row[0])
