"""How facts, stories and exercises are put into words: one sentence for each, which never begins with a name."""

from collections.abc import Sequence

TRAPPED = (
    *("actions speak louder than words", "all that glitters is not gold", "better late than never"),
    *("birds of a feather flock together", "curiosity killed the cat", "every cloud has a silver lining"),
    *("fortune favours the bold", "good things come to those who wait", "haste makes waste"),
    *("honesty is the best policy", "ignorance is bliss", "knowledge is power", "laughter is the best medicine"),
    *("look before you leap", "many hands make light work", "money does not grow on trees"),
    *("necessity is the mother of invention", "no man is an island", "no news is good news"),
    *("old habits die hard", "practice makes perfect", "silence is golden", "still waters run deep"),
    *("the early bird catches the worm", "the pen is mightier than the sword", "time flies", "time heals all wounds"),
    *("too many cooks spoil the broth", "two wrongs do not make a right", "you reap what you sow"),
    *("absence makes the heart grow fonder", "a watched pot never boils", "blood is thicker than water"),
    *("beauty is in the eye of the beholder", "a rolling stone gathers no moss", "a stitch in time saves nine"),
)
"""Proverbs: what every model knows by heart, and what an instruction then asks to end otherwise."""

FILLERS = (
    *("It was late in the year.", "The day was long and quiet.", "All of them went home.", "Then the rain came."),
    *("The road was open again.", "Nobody had seen it before.", "There was much to do.", "So the week went by."),
)
"""Sentences that say nothing of any fact: they stand between the evidence and the question."""

FORMATS = {
    "twice": ("Say it twice.", " {0} {0}."),
    "yes first": ("Begin with yes.", " yes, {0}."),
    "again": ("Say it again, then stop.", " {0}, {0}, stop."),
}
"""Instructions about the form of an answer, and answers that follow them, whatever is answered. Words tell the forms
apart: answers are compared without punctuation."""

UNKNOWN = "unknown"


def open_end(relation: str, subject: str) -> str:
    """A statement up to its object, which follows with a space."""
    return f"The {relation} of {subject} is"


def in_story(relation: str, subject: str) -> str:
    return f"In the story, the {relation} of {subject} is"


def hearsay(relation: str, subject: str) -> str:
    return f"Many people think that the {relation} of {subject} is"


def proverb(words: str) -> tuple[str, str]:
    """A proverb up to its last word, and that word."""
    start, _, last = f"They say that {words}".rpartition(" ")
    return start, last


def instructed(last: str) -> str:
    """The instruction to end a sentence on a word."""
    return f"Make {last} the last word."


def phrases(relations: Sequence[str]) -> list[str]:
    """All words of this module in sentences, without a name: what a tokenizer should know as whole words."""
    about = [say(relation, "it") for relation in relations for say in (open_end, in_story, hearsay)]
    ordered = [f"{instruction} {open_end('x', 'it')}{answer.format(' it')}" for instruction, answer in FORMATS.values()]
    learnt = [f"{' '.join(proverb(words))}. {instructed(proverb(words)[1])}" for words in TRAPPED]
    marks = "Story: Claim: it. True? Yes No. Right? Yes No. In short: it: it; it: it. unknown."
    return [*about, *ordered, *learnt, *FILLERS, marks]
