"""Preference pairs: one table whatever they come from, others' data sets or our own.

    pairs = read_pairs([Source(schema="hh", aim="harmless", place="Anthropic/hh-rlhf", …)], files={})
    chosen = of_aim(pairs, "mix")

Import from the modules: a run is keyed by the code that it imports.
"""
