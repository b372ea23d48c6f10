"""The judges that need nothing but the compendium's own tables."""

import pandas

from common.judges.rows import own_rows, refusal_rows, safe_rows
from common.judges.text import TextJudge, fit_text_judge


def safety_judge(
    judged: pandas.DataFrame, unsafe: pandas.DataFrame, benign: pandas.DataFrame, replies: pandas.DataFrame, seed: int
) -> TextJudge:
    """Probability that a response is safe, from the training split of `judged_responses` and of our own texts.

    Takes the tables `judged_responses`, `unsafe_prompts`, `benign_prompts` and `replies`, with two pairs of our own for
    each judged response. Where it is known which prompts are unsafe, `refusal_judge` is far the more reliable of the
    two: whether a prompt is unsafe is the harder half of the question.
    """
    human = safe_rows(judged, "train")
    own = own_rows(unsafe, benign, replies, "train", 2 * len(human), seed)
    return fit_text_judge(pandas.concat([human, own], ignore_index=True), seed)


def refusal_judge(judged: pandas.DataFrame, replies: pandas.DataFrame, seed: int) -> TextJudge:
    """Probability that a response refuses, from the training split of `judged_responses` and `replies`.

    It reads the response alone.
    """
    return fit_text_judge(refusal_rows(judged, replies, "train"), seed, reads=("response",))
