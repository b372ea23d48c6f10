"""A table of what a model makes of files of tasks, with intervals: the command `compendium score`."""
