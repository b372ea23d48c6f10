"""Files of published benchmarks become tasks, and what is malformed is counted, reported or refused in one line."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.tasks.files import read_task
from common.tasks.items import NO, YES, Item, Task
from common.tasks.schemas import SCHEMAS, decade
from task_files import FACTS, FILES, MISCONCEPTIONS, PROVERBS, halueval, lines, memotrap, popqa, truthfulqa, write_all


@pytest.fixture
def paths(tmp_path):
    return write_all(tmp_path)


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("schema", SCHEMAS)
def test_columns_say_which_format_a_file_has_whatever_its_name(paths, schema):
    task = read_task(paths[schema].rename(paths[schema].with_name("data.txt")))
    assert (task.name, task.aspect, task.kind) == (schema, SCHEMAS[schema].aspect, SCHEMAS[schema].kind)
    assert task == read_task(paths[schema].with_name("data.txt"), schema)


def test_memotrap_offers_both_endings_and_knows_the_memorised_one(paths):
    task = read_task(paths["memotrap"])
    assert [item.row for item in task.items] == ["2", "4", "6", "7"]  # two prompts have two lines
    for item, (prompt, classes, at) in zip(task.items, PROVERBS, strict=True):
        assert (item.prompt, item.right, item.wrong) == (prompt, (classes[at],), (classes[1 - at],))
        assert item.memorised == item.wrong


def test_truthfulqa_puts_the_best_answer_first_and_parts_answers_at_semicolons(paths):
    second = read_task(paths["truthfulqa"]).items[1]
    assert second.prompt == 'Q: What is rain, "really"?\nA:'
    assert second.right == (" Rain is water", " Water", " Rain is water, no more")
    assert second.wrong == (" Tears of birds",)
    assert second.groups == {"category": "Weather", "type": "Adversarial"}


def test_popqa_has_all_answers_and_bins_of_popularity(paths):
    items = read_task(paths["popqa"]).items
    assert [item.right for item in items] == [tuple(known) for *_, known in FACTS]
    assert [item.groups["popularity"] for item in items] == ["10^1", "10^3", "10^1", "10^3"]
    assert items[2].prompt == "Q: What does Cy Fox do?\nA:"


@pytest.mark.parametrize(("views", "bin"), [(0, "0"), (1, "10^0"), (9, "10^0"), (10, "10^1"), (12345, "10^4")])
def test_popularity_is_binned_by_powers_of_ten(views, bin):
    assert decade(views) == bin


def test_nq_swap_shows_the_swapped_context_and_keeps_what_memory_would_say(paths):
    first = read_task(paths["nq-swap"]).items[0]
    assert first.prompt == "In the hills a dog sings.\n\nQ: who sings in the hills\nA:"
    assert (first.right, first.memorised, first.wrong) == (("a dog",), ("a fox",), ())


@pytest.mark.parametrize("kind", ["qa", "dialogue", "summarization"])
def test_halueval_judges_both_texts_of_a_row(paths, kind):
    items = read_task(paths[f"halueval-{kind}"]).items
    assert [item.row for item in items] == ["1", "1", "2", "2", "3", "3"]
    for number, item in enumerate(items):
        assert item.right == ((NO,), (YES,))[number % 2]
        assert f"It is {('brown', 'green')[number % 2]} {number // 2}." in item.prompt
        assert "fox" in item.prompt
        assert item.prompt.endswith("Yes or No:")


@pytest.mark.parametrize("label", ["hallucination", "hallucination_label"])
def test_halueval_general_is_read_by_its_new_and_its_old_column(tmp_path, label):
    content = FILES["halueval-general"][1](label)
    items = read_task(written(tmp_path, "general_data.json", content)).items
    assert [item.right for item in items] == [(YES,), (NO,), (YES,)]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_byte_order_mark_and_line_ends_of_windows_change_nothing(paths, schema):
    plain = read_task(paths[schema])
    content = paths[schema].read_bytes()
    paths[schema].write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert read_task(paths[schema]) == plain


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (memotrap([*PROVERBS, ("Say", [" a"], 0)]), "line 8: answer_index 0 of 1 classes"),
        (memotrap([*PROVERBS, ("Say", [" a", " a"], 0)]), "line 8: answer_index 0 of 1 classes"),
        (memotrap([*PROVERBS, ("Say", [" a", " b"], 2)]), "line 8: answer_index 2 of 2 classes, allowed: 0 or 1 of 2"),
        (memotrap([*PROVERBS, ("Say", [" a", " b"], "x")]), "line 8: answer_index is 'x', allowed: a whole number"),
        (memotrap([*PROVERBS, (" ", [" a", " b"], 0)]), "line 8: prompt is ' ', allowed: a text"),
        (memotrap() + 'Say,"open(1)",0\n', "line 8: classes is 'open(1)', allowed: a list of texts"),
        (memotrap() + "Say,[' a'\n", "line 8: not as many fields as columns"),
        (memotrap().encode() + b"S\xe9y,\"[' a', ' b']\",0\n", "line 8: a byte that is no UTF-8"),
        (truthfulqa([*MISCONCEPTIONS, ("Law", "Is it?", "No", "No; Yes", "Yes")]), "line 5: ' Yes' is right and wrong"),
        (truthfulqa([*MISCONCEPTIONS, ("Law", "Is it?", "No", "No", " ")]), "line 5: Incorrect Answers is ' '"),
        (popqa([*FACTS, ("Ed", "x", -1, "What?", ["y"])]), "line 6: s_pop is '-1', allowed: a whole number, 0 or more"),
        (popqa([*FACTS, ("Ed", "x", 1, "What?", [""])]), "line 6: possible_answers is "),
        (halueval("qa") + "{\n", "line 4: no JSON: Expecting property name"),
        (halueval("qa") + "[1]\n", "line 4: a row is [1], allowed: an object"),
        (halueval("qa") + '{"knowledge": "a"}\n', "line 4: no field 'question'"),
        (lines([{"user_query": "a", "chatgpt_response": "b", "hallucination": "?"}]), "line 1: hallucination is '?'"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_left_out_up_to_a_share_and_named_beyond(tmp_path, capsys, content, said):
    path = written(tmp_path, "file", content)
    with pytest.raises(UserError) as refused:
        read_task(path)
    assert str(refused.value).startswith(f"{path}: 1 of ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    if "1 of 1 rows" not in str(refused.value):
        assert read_task(path, malformed_share=0.5).items
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no rows"),
        ("prompt,classes,answer_index\n", "no rows"),
        ("question;prop;s_pop;possible_answers\n1;2;3;4\n", "has semicolons .*, allowed: commas or tabs"),
        ("a,b\n1,2\n", "fit none of memotrap, truthfulqa, .*; nearest is "),
        ("question,prop,s_pop\n1,2,3\n", "nearest is popqa, it lacks possible_answers"),
        ("[{}]", "begins a JSON array, allowed: an object a line"),
        ('prompt,classes,answer_index\n"a', "line 2: unexpected end of data"),
        ('prop\ts_pop\tquestion\tpossible_answers\n"a', "line 2: unexpected end of data"),
        (json.dumps(dict.fromkeys([*SCHEMAS["nq-swap"].columns, *SCHEMAS["popqa"].columns])), "fit popqa and nq-swap"),
    ],
)
def test_a_file_that_is_none_of_these_is_refused_in_one_line(tmp_path, content, said):
    path = written(tmp_path, "file.csv", content)
    with pytest.raises(UserError, match=f"^{path}:? .*{said}"):
        read_task(path)


@given(st.sampled_from(list(FILES)), st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_a_file_it_is_a_task_or_one_line(tmp_path, schema, data):
    content = bytearray(FILES[schema][1]().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 30))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"\n", b"\t", b",", b"[", b"{", b"null", b"\\u", b"\r"])
        )
    rows, said = [], ""
    try:
        rows = [item.row for item in read_task(written(tmp_path, "file", bytes(content)), malformed_share=0.9).items]
    except UserError as error:
        said = str(error)
    assert bool(rows) is not bool(said)
    assert "\n" not in said
    assert all(row.isdigit() for row in rows)


def test_a_named_format_asks_for_its_columns(paths):
    with pytest.raises(UserError, match="popqa has possible_answers, prop, question, s_pop, this file only answer_i"):
        read_task(paths["memotrap"], "popqa")
    with pytest.raises(UserError, match="no format 'memo'; allowed: memotrap, truthfulqa"):
        read_task(paths["memotrap"], "memo")
    with pytest.raises(UserError, match=r"nothing\.csv cannot be read: No such file"):
        read_task(paths["memotrap"].with_name("nothing.csv"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"right": ()}, "there is no right answer"),
        ({"wrong": (" ",)}, "an answer is empty"),
        ({"wrong": (" a",)}, "' a' is right and wrong"),
        ({"memorised": (" a",)}, "' a' is right and memorised"),
    ],
)
def test_an_item_that_asks_nothing_is_no_item(fields, said):
    with pytest.raises(ValueError, match=said):
        Item(**{"prompt": "p", "right": (" a",)} | fields)


@pytest.mark.parametrize(
    ("kind", "items", "said"),
    [
        ("choice", [], "no items"),
        ("choice", [Item("p", (" a",))], "item 0: the answer is 'choice', and 0 wrong answers are offered"),
        ("exact", [Item("p", (" a",), (" b",))], "item 0: the answer is 'exact', and 1 wrong answers are offered"),
        ("choice", [Item("p", (" a",), (" b",), (" c",))], "a memorised answer is not among those offered"),
        ("yes or no", [Item("p", (" a",), (" b",))], "item 0: answers are"),
    ],
)
def test_a_task_has_items_of_its_kind(kind, items, said):
    with pytest.raises(UserError, match=said):
        Task("name", "factuality", kind, "nothing", items)
