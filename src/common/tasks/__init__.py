"""Tasks on which language models hallucinate, or don't: what is asked, from which files, and how answers are scored.

Import from the modules: a run is keyed by the code that it imports.
"""
