"""Prompts with their completions as token ids, by the tokenizer's chat template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from common.errors import UserError

Turns = Sequence[Mapping[str, str]]  # of a dialogue, each with its `role` and `content`


@dataclass(frozen=True)
class Example:
    """Ids of a prompt and of completions that follow it: the chosen one first, then the rejected one if there is."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]


def encode_examples(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Turns],
    completions: Sequence[Sequence[str]],
    context: int,
) -> list[Example]:
    """One example a prompt: `completions[i]` are its chosen and its rejected response, or one response alone.

    A prompt is a user's turn, or the turns of a dialogue that ends with a user's; a completion is the assistant's turn
    after it, with what the chat template ends it with. Raises `UserError`, with the example's number, where a turn or
    completion is empty, turns do not alternate from a user's to a user's, all completions are the same, a text is
    longer than `context` tokens, or the template does not begin an answered dialogue with the prompt.
    """
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template: set tokenizer.chat_template")
    if not prompts or len(prompts) != len(completions):
        raise UserError(f"{len(prompts)} prompts and {len(completions)} lists of completions: give each prompt one")
    dialogues = [_turns(number, prompt) for number, prompt in enumerate(prompts)]
    for number, (dialogue, several) in enumerate(zip(dialogues, completions, strict=True)):
        if isinstance(several, str) or not several:
            raise UserError(f"example {number}: its completions are {several!r}, allowed: a list of at least one text")
        if not all(text.strip() for text in (*(turn["content"] for turn in dialogue), *several)):
            raise UserError(f"example {number}: its prompt or a completion is empty")
        if len(several) > 1 and len({text.strip() for text in several}) == 1:
            raise UserError(f"example {number}: its completions are the same, so there is nothing to prefer")
    answered = [
        [*dialogue, {"role": "assistant", "content": text}]
        for dialogue, several in zip(dialogues, completions, strict=True)
        for text in several
    ]
    asked = tokenizer.apply_chat_template(dialogues, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(answered, tokenize=False)
    heads = tokenizer(asked, add_special_tokens=False)["input_ids"]
    wholes = iter(tokenizer(whole, add_special_tokens=False)["input_ids"])
    examples = []
    for number, (head, several) in enumerate(zip(heads, completions, strict=True)):
        tails = []
        for _ in several:
            ids = next(wholes)
            if ids[: len(head)] != head or len(ids) == len(head):
                raise UserError(f"example {number}: the chat template does not put a completion behind its prompt")
            if len(ids) > context:
                raise UserError(f"example {number}: prompt and completion have {len(ids)} tokens, allowed: {context}")
            tails.append(tuple(ids[len(head) :]))
        examples.append(Example(tuple(head), tuple(tails)))
    return examples


def _turns(number: int, prompt: str | Turns) -> list[Mapping[str, str]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    for place, turn in enumerate(prompt):
        role = ("user", "assistant")[place % 2]
        if not isinstance(turn, Mapping) or turn.get("role") != role or not isinstance(turn.get("content"), str):
            raise UserError(f"example {number}: turn {place} is {turn!r}, allowed: role {role!r}, and content")
    if len(prompt) % 2 == 0:
        raise UserError(f"example {number}: {len(prompt)} turns, allowed: an odd number, so that the last is a user's")
    return list(prompt)


def with_mismatched(examples: Sequence[Example], context: int) -> list[Example]:
    """Pairs, each with a completion of the pair before it as a third one, by turns the chosen and the rejected one.

    KTO measures on these how far the model is from its reference. Raises `UserError` where there are fewer than two
    pairs or one becomes longer than `context` tokens.
    """
    if len(examples) < 2:
        raise UserError(f"{len(examples)} pairs: a completion of another prompt needs two")
    found = []
    for number, example in enumerate(examples):
        other = examples[number - 1].completions[number % 2]
        if (length := len(example.prompt) + len(other)) > context:
            raise UserError(f"example {number}: with the completion before, {length} tokens, allowed: {context}")
        found.append(Example(example.prompt, (*example.completions[:2], other)))
    return found
