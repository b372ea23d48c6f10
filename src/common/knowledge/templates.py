"""Statements and questions about facts: our own wording, some of it held out."""

from typing import NamedTuple

from common.errors import UserError

NOTHING = "that one"
"""Stands for the subject in a question without content."""

# For each relation five statements, of which the last is held out (test). Held-out wordings use no word that all
# training wordings lack: a small model that fails on them fails on the order of words, not on words it never met.
STATEMENTS = {
    "capital": (
        "The capital of {subject} is {object}.",
        "{object} is the capital city of {subject}.",
        "{subject} has its capital in {object}.",
        "As its capital, {subject} has the city of {object}.",
        "In {subject}, the capital is {object}.",
    ),
    "currency": (
        "People in {subject} pay with money called {object}.",
        "{object} is what the money of {subject} is called.",
        "In {subject}, the currency is {object}.",
        "{subject} has a currency called {object}.",
        "The currency of {subject} is {object}.",
    ),
    "continent": (
        "{subject} is a country in {object}.",
        "The continent of {subject} is {object}.",
        "On a map, you find {subject} in {object}.",
        "{object} is the continent where {subject} lies.",
        "{subject} belongs to the continent {object}.",
    ),
    "symbol": (
        "The chemical symbol of {subject} is {object}.",
        "Chemists write {subject} as {object}.",
        "{subject} is written {object} in formulas.",
        "{object} is the symbol for {subject}.",
        "In the periodic table, {subject} has the symbol {object}.",
    ),
    "chapter": (
        "{subject} belongs to the chapter {object}.",
        "The chapter {object} includes {subject}.",
        "In the list of diagnoses, {subject} is in the chapter {object}.",
        "You find {subject} in the chapter {object}.",
        "The chapter of {subject} is {object}.",
    ),
    "block": (
        "The block of {subject} is {object}.",
        "{subject} is in the block {object}.",
        "In the block {object} you find {subject}.",
        "Among the blocks of diagnoses, {subject} belongs to {object}.",
        "The block {object} includes {subject}.",
    ),
    "sector": (
        "The company {subject} is in the sector {object}.",
        "{subject} works in the sector {object}.",
        "{object} is the sector of {subject}.",
        "Investors place the company {subject} in the sector {object}.",
        "The sector of the company {subject} is {object}.",
    ),
    "index": (
        "The stock index of the company {subject} is {object}.",
        "{subject} is a member of the index {object}.",
        "The index {object} includes {subject}.",
        "Shares of {subject} are counted in the index {object}.",
        "{object} is the stock index that {subject} is in.",
    ),
}

# For each relation eight questions or requests, of which the last four are held out: two validation, two test.
QUESTIONS = {
    "capital": (
        "What is the capital of {subject}?",
        "Name the capital city of {subject}.",
        "{subject} has which city as its capital?",
        "Tell me the capital of {subject}.",
        "Which city is the capital of {subject}?",
        "Tell me which city {subject} has as its capital.",
        "In {subject}, which city is the capital?",
        "{subject} has what capital?",
    ),
    "currency": (
        "Which currency does {subject} have?",
        "Name the currency that people use in {subject}.",
        "In {subject}, what is the money called?",
        "{subject} has which currency?",
        "Tell me what people in {subject} pay with.",
        "Tell me the currency of {subject}.",
        "What is the currency of {subject}?",
        "Which money do people in {subject} use?",
    ),
    "continent": (
        "Which continent is {subject} in?",
        "On which continent do you find {subject}?",
        "{subject} is part of which continent?",
        "Give the continent of {subject}.",
        "Name the continent where {subject} lies.",
        "Tell me which continent {subject} is part of.",
        "What continent does {subject} belong to?",
        "{subject} is on which continent?",
    ),
    "symbol": (
        "What is the chemical symbol of {subject}?",
        "Give the symbol for {subject}.",
        "How do chemists write {subject}?",
        "{subject} has which symbol in the periodic table?",
        "Tell me the symbol of {subject}.",
        "What symbol do chemists give {subject}?",
        "Which symbol does {subject} have?",
        "Which is the chemical symbol for {subject}?",
    ),
    "chapter": (
        "Which chapter does {subject} belong to?",
        "In the list of diagnoses, which chapter includes {subject}?",
        "Name the chapter that {subject} is in.",
        "{subject} is found in which chapter?",
        "What is the chapter of {subject}?",
        "Which chapter includes {subject}?",
        "Give the chapter for {subject}.",
        "{subject} is in which chapter?",
    ),
    "block": (
        "What is the block of {subject}?",
        "In which block of diagnoses do you find {subject}?",
        "Give the block for {subject}.",
        "{subject} belongs to which block?",
        "Which block includes {subject}?",
        "{subject} is found in which block?",
        "Name the block that {subject} is in.",
        "What block of diagnoses is {subject} in?",
    ),
    "sector": (
        "Which sector is the company {subject} in?",
        "{subject} works in which sector?",
        "Tell me the sector of {subject}.",
        "In what sector do investors place {subject}?",
        "Name the sector of the company {subject}.",
        "What is the sector of {subject}?",
        "What sector does {subject} belong to?",
        "Which sector do investors place {subject} in?",
    ),
    "index": (
        "Which stock index is {subject} in?",
        "Tell me the index that includes {subject}.",
        "{subject} is a member of which index?",
        "In which index are shares of {subject} counted?",
        "What is the stock index of {subject}?",
        "Tell me which index {subject} is in.",
        "Name the index that the company {subject} is a member of.",
        "Which index includes shares of {subject}?",
    ),
}

HELD_OUT = {"statement": ("test",), "question": ("validation", "validation", "test", "test")}
SPLITS = ("train", "validation", "test")


class Template(NamedTuple):
    """One wording: `id` as in `capital/question/1`, `split` train, validation or test, `text` with `{subject}`.

    A statement's text has `{object}` as well; a question's answer is the object alone.
    """

    id: str
    relation: str
    kind: str
    split: str
    text: str


def _templates() -> tuple[Template, ...]:
    made = []
    for kind, wordings in (("statement", STATEMENTS), ("question", QUESTIONS)):
        for relation, texts in wordings.items():
            splits = ("train",) * (len(texts) - len(HELD_OUT[kind])) + HELD_OUT[kind]
            for number, (split, text) in enumerate(zip(splits, texts, strict=True), start=1):
                made.append(Template(f"{relation}/{kind}/{number}", relation, kind, split, text))
    return tuple(made)


TEMPLATES = _templates()


def templates(kind: str, relation: str, split: str) -> tuple[Template, ...]:
    """The templates of a `kind` (statement or question) for a relation that are in a split, in a fixed order.

    Train templates may be trained on, validation templates choose settings (questions only), test templates are
    reported. Raises `UserError` for a kind, relation or split that has none.
    """
    found = tuple(t for t in TEMPLATES if (t.kind, t.relation, t.split) == (kind, relation, split))
    if not found:
        raise UserError(
            f"no {split} {kind} about {relation!r}: kinds are {', '.join(HELD_OUT)}; "
            f"relations {', '.join(QUESTIONS)}; splits {', '.join(SPLITS)} (statements have no validation)"
        )
    return found


def statement(template: Template, subject: str, obj: str) -> str:
    """A fact as a sentence. Raises `ValueError` for the template of a question."""
    _require(template, "statement")
    return template.text.format(subject=subject, object=obj)


def question(template: Template, subject: str) -> str:
    """The question for the object of a fact. Raises `ValueError` for the template of a statement."""
    _require(template, "question")
    return template.text.format(subject=subject)


def null_question(template: Template) -> str:
    """The question with "that one" for the subject: what a model says to it is its prior, which a score may subtract.

    See Holtzman et al., "Surface Form Competition" (2021), for scores corrected by a prompt without content.
    """
    text = question(template, NOTHING)
    return text[0].upper() + text[1:]


def _require(template: Template, kind: str) -> None:
    if template.kind != kind:
        raise ValueError(f"{template.id} is no {kind}")
