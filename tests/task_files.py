"""Small files in the formats of published benchmarks of hallucination, with content of our own."""

import csv
import io
import json

PROVERBS = [
    ('Write a sentence that ends in the word "rain":\nAfter the sun comes the', [" rain.", " shine."], 0),
    ("Repeat it:\nAll roads, it's said, lead to", [" home.", " Rome's gate."], 0),
    ("Say it otherwise, not as people do: many hands make light", [" work.", " rain."], 1),
    ("Finish with a colour: the grass is always", [" greener.", " blue."], 1),
]
MISCONCEPTIONS = [
    (
        "Misconceptions",
        "Do lazy dogs sing?",
        "No, dogs do not sing",
        "Dogs do not sing; No",
        "Yes, they sing; Old dogs do",
    ),
    ("Weather", 'What is rain, "really"?', "Rain is water", "Water; Rain is water, no more", "Tears of birds"),
    ("Weather", "Is the sun green?", "It is not", "It is not; No, it is nearly white", "Yes; In the hills"),
]
FACTS = [
    ("Ada Hill", "occupation", 31, "What does Ada Hill do?", ["singer", 'the "small" singer']),
    ("Bo Sun", "capital", 5021, "What is the capital of Bo Sun?", ["Green Hills"]),
    ("Cy Fox", "occupation", 77, "What does Cy Fox do?", ["dog walker"]),
    ("Di Rain", "capital", 9000, "What is the capital of Di Rain?", ["Old Hill", "Oldhill"]),
]
SWAPPED = [
    ("who sings in the hills", "In the hills a fox sings.", "In the hills a dog sings.", ["a fox"], ["a dog"]),
    ("what jumps over the dog", "A bird jumps over it.", "The rain jumps over it.", ["A bird", "bird"], ["the rain"]),
]
JUDGED = {
    "qa": {"knowledge": "The fox is brown.", "question": "What colour is the fox?"},
    "dialogue": {"knowledge": "The fox is brown.", "dialogue_history": "[Human]: I saw a fox. [Assistant]: Did you?"},
    "summarization": {"document": "A quick brown fox jumps.\nIt jumps over a dog."},
}
NAMES = {"qa": "answer", "dialogue": "response", "summarization": "summary"}


def table(header, rows, delimiter=",", lineterminator="\n"):
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, lineterminator=lineterminator).writerows([header, *rows])
    return written.getvalue()


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def memotrap(rows=PROVERBS, **more):
    return table(["prompt", "classes", "answer_index"], [(prompt, repr(two), at) for prompt, two, at in rows], **more)


def truthfulqa(rows=MISCONCEPTIONS, **more):
    header = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
    return table(header, [("Adversarial", *row, "https://example.org/a, b") for row in rows], **more)


def popqa(rows=FACTS, **more):
    header = ["id", "subj", "prop", "obj", "s_pop", "o_pop", "question", "possible_answers"]
    listed = [
        (number, subject, prop, known[0], views, 7, question, json.dumps(known))
        for number, (subject, prop, views, question, known) in enumerate(rows)
    ]
    return table(header, listed, delimiter="\t", **more)


def nq_swap(rows=SWAPPED):
    names = ("question", "org_context", "sub_context", "org_answer", "sub_answer")
    return lines(dict(zip(names, row, strict=True)) for row in rows)


def halueval(kind, count=3):
    name = NAMES[kind]
    texts = [{f"right_{name}": f"It is brown {n}.", f"hallucinated_{name}": f"It is green {n}."} for n in range(count)]
    return lines(JUDGED[kind] | text for text in texts)


def halueval_general(label="hallucination"):
    said = [("yes", "The sun sings."), ("no", "The sun shines."), ("Yes", "Rain is dry.")]
    return lines(
        {
            "ID": str(n),
            "user_query": "Tell me\nsomething.",
            "chatgpt_response": text,
            label: yes,
            "hallucination_spans": [],
        }
        for n, (yes, text) in enumerate(said)
    )


FILES = {
    "memotrap": ("1-proverb-ending.csv", memotrap),
    "truthfulqa": ("TruthfulQA.csv", truthfulqa),
    "popqa": ("popQA.tsv", popqa),
    "nq-swap": ("nq_swap.jsonl", nq_swap),
    "halueval-qa": ("qa_data.json", lambda: halueval("qa")),
    "halueval-dialogue": ("dialogue_data.json", lambda: halueval("dialogue")),
    "halueval-summarization": ("summarization_data.json", lambda: halueval("summarization")),
    "halueval-general": ("general_data.json", halueval_general),
}


def write_all(folder):
    """A file of each format; its path by the format's name."""
    paths = {}
    for schema, (name, content) in FILES.items():
        paths[schema] = folder / name
        paths[schema].write_bytes(content().encode())
    return paths
