"""Preference pairs: one table whatever they come from, others' data sets or our own.

    table, count = read_pairs("HH", [Source(layout="hh", aim="harmless", place="Anthropic/hh-rlhf", …)], files={})
    chosen = of_aim(table, "harmless")

Import from the modules: a run is keyed by the code that it imports.
"""
