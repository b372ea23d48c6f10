"""What models know: facts as statements and questions, and multiple choice between the objects of a relation.

facts = read_table("facts")
statement(template, subject, object)                  # to be learnt
items = choices(facts, split="test")                  # to be asked
prior_accuracy(items, facts)                          # what knowing no subject gives
"""

from common.knowledge.choices import choices, prior_accuracy
from common.knowledge.templates import TEMPLATES, Template, null_question, question, statement, templates

__all__ = [
    "TEMPLATES",
    "Template",
    "choices",
    "null_question",
    "prior_accuracy",
    "question",
    "statement",
    "templates",
]
