"""Who says whether a response is safe: a classifier of texts, a model's own likelihoods, models from a hub.

Import from the modules: a run is keyed by the code that it imports.
"""
