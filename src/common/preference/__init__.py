"""Preference tuning: losses, pairs, reference log-probabilities, adapters, and one function that fine-tunes.

    examples = encode_examples(tokenizer, prompts, pairs_of_responses, context)
    reference = reference_log_probs(model, examples)
    tuned, metrics = finetune(model, examples, Tuning(method="dpo", beta=0.1, …), seed, reference=reference)

Import from the modules: a run is keyed by the code that it imports.
"""

import logging

# peft imports bitsandbytes, which on some processors warns of a kernel for inference that it would fetch from a hub.
# Nothing here uses it, and a warning that depends on the processor has no place in an executed notebook.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
