"""The runs of the alignment study: models to start from, references, and fine-tunings by preference pairs.

Import from the modules: a run is keyed by the code that it imports.
"""
