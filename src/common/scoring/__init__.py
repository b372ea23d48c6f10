"""What a language model says of texts: losses, likelihoods of continuations, choices, perplexity, generations.

Import from the modules: a run is keyed by the code that it imports, so whoever only needs a loss stays as it is when
another module changes.
"""
