"""Facts of finance: the sector of a company and the index that holds its share."""

import ast
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from common.corpus.literals import assigned, literal
from common.corpus.triples import Candidate, fact, text, untold, words
from common.errors import UserError
from common.rows import parse_rows
from common.sources import Reader

# The eleven sectors of the Global Industry Classification Standard, and parts of words in a company's name that give
# its sector away beside those of the sector's name.
SECTORS = {
    "Communication Services": "tele media broadcast news mobile cable wireless publish entertain music internet",
    "Consumer Discretionary": "auto motor retail apparel resort hotel restaurant home store cloth shoe wear sport "
    "game casino cruise grill pizza kitchen outfit jewel",
    "Consumer Staples": "food beverage brew tobacco cola grocer farm snack cosmetic cream",
    "Energy": "oil gas petrol drill pipe coal resourc explor",
    "Financials": "bank banc insur assur capit trust saving mortgag invest asset loan credit fund",
    "Health Care": "pharma therap medic heal bio surg dent hospital gene lab onco cardi care life lives clinic scien",
    "Industrials": "aero air rail logist freight machin engine construct truck transport tool manufact",
    "Information Technology": "tech soft semi micro data comput digi net system devic electr circuit cloud cyber",
    "Materials": "chem steel metal mining gold paper packag alumin cement glass",
    "Real Estate": "realty reit propert resident hotel land storage apartment home office mall trust center",
    "Utilities": "electr water power gas energ light grid",
}
CLASSIFIED = frozenset({"S&P 500", "S&P 600"})
"""The indices of the standard's own maker; elsewhere the same words are labels of other classifications."""

# Indices of which a company can be in one alone, by their maker's rules: one a country, or one a size. The others of
# the package cut across them. Then parts of words that give a country away.
INDICES = {
    "AEX": ("AEX", "dutch nederland amsterdam"),
    "BEL 20": ("BEL 20", "belg bruxel brussel"),
    "CAC_40": ("CAC 40", "franc paris"),
    "CAC Mid 60": ("CAC Mid 60", "franc paris"),
    "DAX": ("DAX", "deutsch german"),
    "MDAX": ("MDAX", "deutsch german"),
    "SDAX": ("SDAX", "deutsch german"),
    "FTSE 100": ("FTSE 100", "brit london scot engl unite royal"),
    "IBEX 35": ("IBEX 35", "banco espa iber"),
    "NIKKEI 225": ("Nikkei 225", "japan nippon toky toki yokohama osaka nomura"),
    "OMX Helsinki 25": ("OMX Helsinki 25", "finn nord helsin"),
    "OMX Stockholm 30": ("OMX Stockholm 30", "sve swed nord"),
    "S&P 500": ("S&P 500", "america unite texas"),
    "S&P 600": ("S&P 600", "america unite california"),
    "Switzerland 20": ("Swiss Market Index", "swiss zurich schweiz"),
}
CAP = 60

COMMON = frozenset(words("the and group holding holdings company companies international"))
LEGAL_FORM = re.compile(
    r"((,|\s&|\sand)?\s(Inc|Incorporated|Corp|Corporation|Company|Co|plc|PLC|Ltd|Limited|AG|SE|SA|S\.A|S\.A\.F|NV|N\.V"
    r"|AB|KGaA|LLC|LP|SCA)\.?)+(\s&)?$"
)

AGREEMENT = 0.9
"""Share of the companies with a label that must have one sector for the label to speak for that sector."""


@dataclass
class Company:
    """What all entries of one name say: its sectors, the other labels of its industry, the indices."""

    name: str
    sectors: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    indices: set[str] = field(default_factory=set)


def companies(read: Reader) -> list[dict[str, Any]]:
    """Relations `sector` (one of eleven) and `index` of listed companies; popularity is unknown.

    Entries whose names agree, but for what stands in brackets, case and the legal form, are one company. Its sector
    is a fact when it is in the S&P 500 or 600 and all its entries together name exactly one of the eleven, which no
    other label of theirs contradicts: a label speaks for a sector when at least nine of ten companies that carry it
    (of those with exactly one sector) have that sector. Its index is a fact when it is in exactly one of `INDICES`,
    whatever others hold it. In either relation a name that gives the answer away is left out (`triples.untold`, with
    the parts of words that `SECTORS` and `INDICES` list), and each sector and index keeps at most 60 companies.
    """
    [(file, content)] = read("pytickersymbols").items()
    known: dict[str, Company] = {}
    for index, name, industries in parse_rows(file, _entries(file, content), _company):
        company = known.setdefault(key_of(name), Company(name))
        company.indices.add(index)
        company.sectors |= industries & SECTORS.keys()
        company.labels |= industries - SECTORS.keys()
    by_sector = [
        Candidate(key, company.name, *company.sectors)
        for key, company in _uncontradicted(known).items()
        if company.indices & CLASSIFIED
    ]
    by_index = [
        Candidate(key, company.name, INDICES[home.pop()][0])
        for key, company in known.items()
        if len(home := company.indices & INDICES.keys()) == 1
    ]
    return [
        fact("finance", relation, key, subject, obj)
        for relation, candidates, telling in (
            ("sector", by_sector, SECTORS),
            ("index", by_index, dict(INDICES.values())),
        )
        for key, subject, obj, _ in untold(candidates, telling, COMMON, CAP)
    ]


def without_legal_form(name: str) -> str:
    """A company's name without a leading "The", what stands in brackets, and "Inc.", "AG" and the like at its end.

    Nor has it a class of shares that is glued to the name, as in "LifcoB".
    """
    bare = LEGAL_FORM.sub("", re.sub(r"^The |\s*\([^)]*\)", "", name).strip()).strip()
    return re.sub(r"(?<=[a-zäöå])[ABC]$", "", bare)


def key_of(name: str) -> str:
    """What two spellings of a name have in common: its words and numbers in lower case, joined by hyphens."""
    return "-".join(re.findall(r"\w+", name.casefold()))


def _uncontradicted(known: dict[str, Company]) -> dict[str, Company]:
    """The companies of exactly one sector for which no label of theirs speaks for another."""
    single = {key: company for key, company in known.items() if len(company.sectors) == 1}
    carriers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for company in single.values():
        for label in company.labels:
            carriers[label].update(company.sectors)
    speaks = {
        label: {sector}
        for label, count in carriers.items()
        for sector, most in [max(count.items(), key=lambda item: item[1])]
        if most >= AGREEMENT * count.total()
    }
    return {
        key: company
        for key, company in single.items()
        if all(speaks.get(label, company.sectors) == company.sectors for label in company.labels)
    }


def _entries(file: str, content: bytes) -> list[tuple[int, tuple[str, ast.expr]]]:
    """Every entry of every index, as `(line, (index, syntax))`."""
    entries = []
    table = assigned(file, content, "INDICES")
    for key, value in zip(table.keys, table.values, strict=True):
        inner = zip(value.keys, value.values, strict=True) if isinstance(value, ast.Dict) else ()
        listed = [node for name, node in inner if isinstance(name, ast.Constant) and name.value == "companies"]
        if not isinstance(key, ast.Constant) or len(listed) != 1 or not isinstance(listed[0], ast.List):
            raise UserError(f"{file}: line {value.lineno}: an index without a list of companies")
        entries += [(node.lineno, (str(key.value), node)) for node in listed[0].elts]
    return entries


def _company(entry: tuple[str, ast.expr]) -> tuple[str, str, set[str]]:
    index, node = entry
    row = literal(node)
    name = without_legal_form(text(row, "name"))
    industries = row.get("industries", [])
    if not name or not isinstance(industries, list) or not all(isinstance(label, str) for label in industries):
        raise ValueError(f"company {name!r} has no name, or industries that are no list of strings")
    return index, name, set(industries)
