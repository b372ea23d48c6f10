"""Facts: read without running anything, told by no word of their subjects, split by subject, the same everywhere."""

import ast
import hashlib
import os
import random
import subprocess
import sys
from collections import Counter

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from common.corpus import TABLES, _lines
from common.corpus.facts import facts
from common.corpus.finance import SECTORS, companies, without_legal_form
from common.corpus.general import countries, elements
from common.corpus.literals import assigned, literal
from common.corpus.medicine import CHAPTERS, block_name, diagnoses
from common.corpus.triples import Candidate, split_of, stems, untold
from common.errors import UserError
from common.project import CACHE, ROOT
from common.sources import fetch, load_sources, read_members
from fact_files import (
    COMPANIES,
    COUNTRIES,
    DIAGNOSES,
    ELEMENTS,
    companies_file,
    company,
    countries_file,
    country,
    diagnosis,
    elements_file,
    few_facts,
    tabular_file,
)


def triples(function, files: dict[str, bytes]) -> set[tuple[str, str, str]]:
    return {(row["subject"], row["relation"], row["object"]) for row in function(lambda _: files)}


def relation(function, files: dict[str, bytes], name: str) -> dict[str, str]:
    return {subject: obj for subject, found, obj in triples(function, files) if found == name}


# Countries and elements


def test_a_country_gives_three_facts_and_its_people_are_its_popularity():
    rows = countries(lambda _: countries_file(country("Avalia", "Torm", "Crown", "SA", people=300_000)))
    assert {(row["id"], row["object"], row["popularity"]) for row in rows} == {
        ("general/capital/AV", "Torm", 300_000),
        ("general/currency/AV", "Crown", 300_000),
        ("general/continent/AV", "South America", 300_000),
    }


@pytest.mark.parametrize("changed", [{"population": 249_999}, {"capital": " "}, {"iso": "CS"}, {"iso": "PR"}])
def test_small_places_places_without_capital_and_no_countries_give_none(changed):
    kept = country("Belorin", "Quist", "Ducat")
    assert len(countries(lambda _: countries_file(country("Avalia", "Torm", "Crown") | changed, kept))) == 3


def test_a_capital_or_currency_that_its_country_tells_is_no_fact():
    files = countries_file(country("Avalia", "Avalia City", "Avalian Crown"), country("East Zorin", "Zorind", "Ducat"))
    assert triples(countries, files) == {
        ("Avalia", "continent", "Europe"),
        ("East Zorin", "continent", "Europe"),
        ("East Zorin", "currency", "Ducat"),
    }


def test_facts_known_to_be_out_of_date_are_left_out():
    files = countries_file(
        country("Avalia", "Torm", "Crown") | {"iso": "KZ"}, country("Corva", "Ymm", "Sou") | {"iso": "BG"}
    )
    assert {(s, r) for s, r, _ in triples(countries, files)} == {
        ("Avalia", "currency"),
        ("Avalia", "continent"),
        ("Corva", "capital"),
        ("Corva", "continent"),
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"population": "many"}, "population 'many'"),
        ({"population": True}, "population True"),
        ({"population": -1}, "population -1"),
        ({"continentcode": "XX"}, "continent 'XX'"),
        ({"capital": None}, "'capital' is not a string"),
        ({"name": ""}, "a country without a code or a name"),
    ],
)
def test_a_malformed_country_is_reported_with_file_and_position_and_many_are_refused(capsys, wrong, said):
    good = [country(f"{letter}avaria", "Torm", "Crown") | {"iso": f"A{letter}"} for letter in map(chr, range(65, 91))]
    many = [row | {"iso": f"{n}{row['iso']}"} for n in range(4) for row in good]
    rows = countries(lambda _: countries_file(*many[:2], good[0] | {"iso": "ZZ"} | wrong, *many[2:]))
    assert len(rows) == 3 * len(many)
    err = capsys.readouterr().err
    assert err.startswith(f"{COUNTRIES}: 1 of 105 rows are malformed, the first at line 3: {said}")
    with pytest.raises(UserError, match=rf"^{COUNTRIES}: 1 of 2 rows are malformed"):
        countries(lambda _: countries_file(good[0], good[1] | wrong))


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff"])
def test_a_file_that_is_no_json_object_is_refused_by_name(content):
    with pytest.raises(UserError, match=f"^{COUNTRIES}: not a JSON object"):
        countries(lambda _: {COUNTRIES: content})


def test_elements_are_read_with_their_symbols_and_the_neutron_is_none():
    files = elements_file(
        "0: ('neutron', 'n', [], [])", "1: ('Floggium', 'Fg', [1], [])", "118: ('Zudium', 'Zu', [], [])"
    )
    assert triples(elements, files) == {("Floggium", "symbol", "Fg"), ("Zudium", "symbol", "Zu")}


@pytest.mark.parametrize(
    "entry", ["'x': ('Floggium', 'Fg')", "5: ('Floggium',)", "5: None", "**{}", "5: ('', 'F')", "5: (['a'], 'F')"]
)
def test_a_malformed_element_is_reported_with_its_line(entry):
    with pytest.raises(UserError, match=rf"^{ELEMENTS}: 1 of 2 rows are malformed, the first at line 9: "):
        elements(lambda _: elements_file("1: ('Plonkium', 'Pl', [])", entry))


# Nothing runs


def test_the_code_of_a_package_is_never_run(tmp_path):
    """A call in the place of a value, and statements around the table, would each leave a file."""
    call = f"open({str(tmp_path / 'run')!r}, 'w')"
    element_file = elements_file("1: ('Floggium', 'Fg', [])", f"2: ({call}, 'X')")
    company_file = companies_file({"S&P 500": [company("Zug", "Energy"), f"{{'name': {call}, 'industries': []}}"]})
    for function, files in ((elements, element_file), (companies, company_file)):
        [(file, content)] = files.items()
        with pytest.raises(UserError, match=r"1 of 2 rows are malformed, the first at line \d+: malformed node"):
            function(lambda _, f=file, c=content: {f: f"{call}\n".encode() + c})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", ["1 + x", "f()", "{[]: 1}", "().__class__", "[0] * 10**9", "-" * 90_000 + "1"])
def test_what_is_no_literal_is_a_value_error(code):
    try:
        node = ast.parse(code, mode="eval").body
    except (MemoryError, RecursionError):
        return
    with pytest.raises(ValueError, match=r"."):
        literal(node)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"A = 1", "assigns nothing to TABLE"),
        (b"x = 1\nTABLE = [1]", "line 2: TABLE is not a dictionary"),
        (b"TABLE: dict", "line 1: TABLE is not a dictionary"),
        (b"x = 1\n\nTABLE = {", "line 3: not Python"),
        (b"def f():\n    TABLE = {}", "assigns nothing"),
        (b"\xff", "line 1: not Python"),
    ],
)
def test_a_module_without_the_table_is_refused_with_file_and_line(content, said):
    with pytest.raises(UserError, match=f"^a.py: {said}") as caught:
        assigned("a.py", content, "TABLE")
    assert "\n" not in str(caught.value)


# Medicine


def sight(*descriptions: str, block: str = "Disorders of lid (H00-H05)") -> dict[str, bytes]:
    """Descriptions in one block of chapter 7."""
    made = [diagnosis(f"H{n:02d}", text) for n, text in enumerate(descriptions)]
    return tabular_file(("7", "Diseases of sight and adnexa (H00-H59)", {block: made}))


def test_a_diagnosis_stands_in_a_chapter_by_our_name_and_in_a_block():
    rows = diagnoses(lambda _: sight("Blinkitis"))
    assert [(row["id"], row["object"], row["popularity"]) for row in rows] == [
        ("medicine/chapter/H00", "eye", None),
        ("medicine/block/H00", "lid", None),
    ]


def test_codes_of_three_and_four_characters_are_taken_and_longer_ones_not():
    deep = diagnosis("H00", "Blinkitis", diagnosis("H00.1", "Winkosis", diagnosis("H00.11", "Squintosis")))
    files = tabular_file(("7", "Diseases of sight", {"Lids": [deep]}))
    assert relation(diagnoses, files, "chapter").keys() == {"Blinkitis", "Winkosis"}


@pytest.mark.parametrize(
    "told",
    [
        "Disease of the eye",  # our name of the chapter
        "Sighted blinkitis",  # a stem of the chapter's name
        "Lid blinkitis",  # of the block's
        "Blinkitis of adnexal parts",
        "Chorioretinal blinkitis",  # a part of a word that we list
    ],
)
def test_a_description_that_tells_its_chapter_or_block_is_no_fact(told):
    assert relation(diagnoses, sight(told, "Winkosis"), "chapter") == {"Winkosis": "eye"}


@pytest.mark.parametrize(
    "text",
    ["Other blinkitis", "Blinkitis, unspecified", "Blinkitis without winks", "One two three four five six", "Disease"],
)
def test_long_and_vague_descriptions_are_left_out(text):
    assert relation(diagnoses, sight(text, "Winkosis"), "chapter") == {"Winkosis": "eye"}


def test_a_word_is_seen_with_one_chapter_once_and_with_another_again():
    files = tabular_file(
        ("7", "Diseases of sight", {"Lids": [diagnosis("H00", "Zonal gripe"), diagnosis("H01", "Zonary plonk")]}),
        ("12", "Diseases of hide", {"Scales": [diagnosis("L00", "Zonal gripe of scales"), diagnosis("L01", "Zonal")]}),
    )
    found = relation(diagnoses, files, "chapter")
    assert Counter(found.values()) == {"eye": 1, "skin": 1}
    assert found["Zonal"] == "skin"


def test_a_description_in_two_blocks_is_no_fact_and_one_repeated_in_its_block_is_one():
    files = tabular_file(
        ("7", "Diseases of sight", {"Lids": [diagnosis("H00", "Plonk", diagnosis("H00.0", "Plonk"))], "Lashes": []}),
        ("12", "Diseases of hide", {"Scales": [diagnosis("L00", "Gripe")], "Hair": [diagnosis("L60", "Gripe")]}),
    )
    assert {row["id"] for row in diagnoses(lambda _: files)} == {"medicine/chapter/H00", "medicine/block/H00"}


def test_chapters_of_circumstances_give_no_facts():
    files = tabular_file(
        ("20", "Causes", {"Falls": [diagnosis("W00", "Slipping")]}),
        ("7", "Diseases of sight", {"Lids": [diagnosis("H00", "Blinkitis")]}),
    )
    assert relation(diagnoses, files, "chapter") == {"Blinkitis": "eye"}


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("Disorders of lid (H00-H05)", "lid"),
        ("Diseases of the lid, lash and brow (H00)", "lid, lash and brow"),
        ("Mood [some] troubles (F30-F39)", "mood troubles"),
        ("Wink lesions, not elsewhere classified (M99)", "wink lesions"),
        (" Wink disorders, not elsewhere classified (QA0)", "wink disorders"),
        ("Other disorders of lid (H55)", None),
        ("Certain winks", None),
        ("Winks of unspecified behaviour", None),
        ("Troubles of lid and lash and brow and chin", None),
        ("", None),
    ],
)
def test_blocks_get_short_names_by_rule(description, name):
    assert block_name(description) == name


def test_a_malformed_diagnosis_is_reported_with_its_line():
    """Line 3 is the chapter's, 6 the section's; the first diagnosis starts at 8 and has eight lines."""
    with pytest.raises(
        UserError, match=rf"^{DIAGNOSES}: 1 of 2 rows are malformed, the first at line 15: 'h1' is no code"
    ):
        diagnoses(
            lambda _: tabular_file(("7", "Sight", {"Lids": [diagnosis("H00", "Plonk"), diagnosis("h1", "Gripe")]}))
        )
    with pytest.raises(UserError, match=r"at line 8: no description at code 'H00'"):
        diagnoses(lambda _: sight(""))


def test_entities_are_not_expanded(tmp_path):
    (tmp_path / "secret").write_text("Blinkitis")
    outside = f'<!DOCTYPE t [<!ENTITY e SYSTEM "{(tmp_path / "secret").as_uri()}">]>'
    inside = '<!DOCTYPE t [<!ENTITY a "Blinkitis"><!ENTITY e "&a;&a;">]>'
    for head in (outside, inside, '<!DOCTYPE t SYSTEM "t.dtd">'):
        files = tabular_file(("7", "Sight", {"Lids": [diagnosis("H00", "x")]}), head=head)
        with pytest.raises(UserError, match=f"^{DIAGNOSES}: line 2: a document type is not allowed"):
            diagnoses(lambda _, f=files: {DIAGNOSES: f[DIAGNOSES].replace(b">x<", b">&e;<")})


@pytest.mark.parametrize("content", [b"<a>", b"", b"\xff\xfe", b"<a>&e;</a>"])
def test_a_file_that_is_no_xml_is_refused_by_name(content):
    with pytest.raises(UserError, match=f"^{DIAGNOSES}: not XML"):
        diagnoses(lambda _: {DIAGNOSES: content})


# Finance


def sectors(**entries: list[str]) -> dict[str, str]:
    """Sectors of companies in the S&P 500 by name, from their labels."""
    made = [company(name, *labels) for name, labels in entries.items()]
    return relation(companies, companies_file({"S&P 500": made}), "sector")


def test_a_company_with_exactly_one_of_the_sectors_gives_a_fact():
    found = sectors(Zug=["Energy", "Pumps"], Plonk=["Energy", "Utilities"], Hurz=["Pumps"], Gnarf=["Materials"] * 2)
    assert found == {"Zug": "Energy", "Gnarf": "Materials"}


def test_all_entries_of_a_company_count_whatever_its_legal_form():
    files = companies_file(
        {
            "S&P 500": [company("Zug Inc.", "Energy"), company("The Plonk Company", "Energy")],
            "DAX": [company("ZUG AG", "Utilities"), company("Plonk (brand)", "Pumps")],
        }
    )
    assert relation(companies, files, "sector") == {"Plonk": "Energy"}
    assert relation(companies, files, "index") == {}


def test_outside_the_classified_indices_the_same_words_are_no_sectors():
    files = companies_file({"DAX": [company("Zug", "Energy")], "S&P 600": [company("Plonk", "Energy")]})
    assert relation(companies, files, "sector") == {"Plonk": "Energy"}


@pytest.mark.parametrize(("agreeing", "kept"), [(8, True), (9, False)])
def test_a_label_that_nine_of_ten_companies_of_another_sector_carry_contradicts(agreeing, kept):
    others = {f"{letter}ug": ["Energy", "Pumps"] for letter in "ABCDEFGHI"[:agreeing]}
    found = sectors(Odd=["Materials", "Pumps"], Even=["Materials", "Hoses"], **others)
    assert ("Odd" in found) == kept
    assert found["Even"] == "Materials"
    assert list(found.values()).count("Energy") == agreeing


def test_a_name_that_tells_its_sector_is_no_fact():
    found = sectors(
        **{"Energetic Zug": ["Energy"], "Plonk Oil": ["Energy"], "Megabank": ["Financials"], "Hurz": ["Energy"]}
    )
    assert found == {"Hurz": "Energy"}


def test_an_index_is_a_fact_when_exactly_one_of_the_disjoint_ones_holds_the_company():
    files = companies_file(
        {
            "CAC_40": [company("Zug"), company("Plonk")],
            "DAX": [company("Plonk"), company("Hurz")],
            "EURO STOXX 50": [company("Zug"), company("Gnarf")],
        }
    )
    assert relation(companies, files, "index") == {"Zug": "CAC 40", "Hurz": "DAX"}


def test_no_sector_keeps_more_than_sixty_companies():
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [f"Q{a}{b}" for a in letters for b in letters][:100]
    files = companies_file({"S&P 500": [company(name, "Utilities") for name in names]})
    assert len(relation(companies, files, "sector")) == 60


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Zug, Inc.", "Zug"),
        ("The Zug & Co. KGaA", "Zug"),
        ("Zug and Company", "Zug"),
        ("Zug Corporation & plc", "Zug"),
        ("Zug S.A. (Class A)", "Zug"),
        ("SCA", "SCA"),
        ("ZugB", "Zug"),
        ("ZUG B", "ZUG B"),
        ("Incorporated Zug", "Incorporated Zug"),
        ("Zug Cocoa", "Zug Cocoa"),
    ],
)
def test_legal_forms_are_no_part_of_a_name(name, plain):
    assert without_legal_form(name) == plain


@pytest.mark.parametrize(
    "entry", ["{'industries': []}", company(7), company("(Zug)"), "['Zug']", "{'name': 'Z', 'industries': [1]}"]
)
def test_a_malformed_company_is_reported_with_its_line(entry):
    with pytest.raises(UserError, match=rf"^{COMPANIES}: 1 of 2 rows are malformed, the first at line 6: "):
        companies(lambda _: companies_file({"DAX": [company("Zug"), entry]}))


@pytest.mark.parametrize("value", ["[]", "{}", "{'companies': ()}", "f()"])
def test_an_index_without_companies_is_refused_with_its_line(value):
    with pytest.raises(UserError, match=rf"^{COMPANIES}: line 2: an index without a list of companies"):
        companies(lambda _: {COMPANIES: f"INDICES = {{\n'DAX': {value}}}".encode()})


# What all have in common

names = st.text("abcdef ", min_size=3, max_size=14)


@given(st.lists(st.tuples(names, st.sampled_from(["one", "two"])), max_size=40), st.integers(1, 9))
def test_of_what_is_left_no_stem_stands_twice_with_an_object(pairs, cap):
    candidates = [Candidate(str(n), subject, obj) for n, (subject, obj) in enumerate(pairs)]
    kept = untold(candidates, {"one": "ab", "two": ""}, frozenset(), cap)
    seen = Counter((c.object, stem) for c in kept for stem in stems(c.subject))
    assert max(seen.values(), default=1) == 1
    assert max(Counter(c.object for c in kept).values(), default=0) <= cap
    assert not any("ab" in word for c in kept if c.object == "one" for word in c.subject.split())
    random.Random(0).shuffle(candidates)
    assert untold(candidates, {"one": "ab", "two": ""}, frozenset(), cap) == kept


def test_stems_see_through_case_accents_and_endings():
    assert stems("Amébic AMEBOMA of the lung-eye, B12") == {"ameb", "the", "lung", "eye"}
    assert stems("Acute disease", frozenset({"disease"})) == {"acut"}


@given(st.text())
def test_the_split_of_a_subject_does_not_depend_on_case(subject):
    assert split_of(subject.upper()) == split_of(subject.upper().casefold())


def test_half_of_the_subjects_are_for_training_and_a_tenth_is_kept_from_all():
    share = Counter(split_of(f"subject {n}") for n in range(10_000))
    assert {name: round(count / 10_000, 1) for name, count in share.items()} == {
        "train": 0.5,
        "validation": 0.2,
        "test": 0.2,
        "control": 0.1,
    }


def test_the_small_files_give_facts_of_every_relation():
    made = facts(few_facts().__getitem__)
    assert {row["relation"] for row in made} == {
        *("capital", "currency", "continent", "symbol", "chapter", "block", "sector", "index")
    }


# The real table


def real_facts() -> list[dict]:
    sources = load_sources(ROOT / "sources.yaml")
    return TABLES["facts"](lambda name: read_members(fetch(sources[name], CACHE / "sources"), sources[name].members))


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return real_facts()


@pytest.fixture(scope="module")
def real(rows) -> pandas.DataFrame:
    return pandas.DataFrame(rows)


def test_the_real_table_has_facts_enough_of_every_relation(real):
    assert real.groupby("relation").size().to_dict() == {
        "block": 339,
        "capital": 159,
        "chapter": 623,
        "continent": 170,
        "currency": 165,
        "index": 569,
        "sector": 468,
        "symbol": 118,
    }
    assert set(real[real.relation == "chapter"].object) == {name for name, _ in CHAPTERS.values()}
    assert set(real[real.relation == "sector"].object) == set(SECTORS)
    assert set(real.domain) == {"general", "medicine", "finance"}


@pytest.mark.parametrize(
    "known",
    [
        ("France", "capital", "Paris"),
        ("Japan", "currency", "Yen"),
        ("Kenya", "continent", "Africa"),
        ("Iron", "symbol", "Fe"),
        ("Huntington's disease", "chapter", "nervous"),
        ("Candidiasis", "block", "mycoses"),
        ("Pfizer", "sector", "Health Care"),
        ("Siemens", "index", "DAX"),
    ],
)
def test_well_known_facts_are_in_the_real_table(real, known):
    subject, name, obj = known
    assert real[(real.subject == subject) & (real.relation == name)].object.tolist() == [obj]


def test_a_real_subject_has_one_split_and_one_object_in_a_relation(real):
    assert real.groupby(real.subject.str.casefold()).split.nunique().max() == 1
    assert not real.duplicated(["subject", "relation"]).any()
    assert real.split.value_counts(normalize=True).round(1).to_dict() == {
        "train": 0.5,
        "validation": 0.2,
        "test": 0.2,
        "control": 0.1,
    }


def test_no_real_subject_shares_a_beginning_with_its_object(real):
    generic = {"disease", "diseases", "disorder", "disorders", "system", "and", "the"}
    for subject, name, obj in zip(real.subject, real.relation, real.object, strict=True):
        if name != "symbol":
            said, asked = (
                {
                    word[:4]
                    for word in text.casefold().replace("-", " ").split()
                    if len(word) > 2 and word not in generic
                }
                for text in (subject, obj)
            )
            assert not said & asked, (subject, obj)


def test_no_object_is_the_answer_too_often(real):
    most = real.groupby("relation").object.agg(lambda column: column.value_counts(normalize=True).iloc[0])
    assert most.drop("continent").max() < 0.14
    assert most["continent"] < 0.3


@pytest.mark.parametrize("name", ["chapter", "sector", "index", "continent"])
def test_whole_words_of_real_subjects_do_not_tell_their_objects(real, name):
    """A bag of words, cross-validated by subject, is no better than naming the most frequent object (0.05 of noise)."""
    part = real[real.relation == name]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=300))
    told = cross_val_predict(model, part.subject, part.object, cv=KFold(5, shuffle=True, random_state=0))
    assert (told == part.object).mean() < part.object.value_counts(normalize=True).iloc[0] + 0.05


def test_the_real_table_has_the_bytes_it_always_had_under_any_hash_seed(rows):
    """Sets of labels and words decide what is kept; their order must not."""
    here = hashlib.sha256(_lines("facts", rows).encode()).hexdigest()
    script = (
        "import hashlib, test_facts as t; from common.corpus import _lines; "
        "print(hashlib.sha256(_lines('facts', t.real_facts()).encode()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT / "tests"), "LC_ALL": "C"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == here
    assert here == "bf285c5d82f4f8dd907169a7a300f7f74d9ce2cd53e136efbed085901118bd9a"
