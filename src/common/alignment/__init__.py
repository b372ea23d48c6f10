"""What preference alignment did to a model: measures that stand in for the benchmarks of arXiv 2406.04879.

Import from the modules: a run is keyed by the code that it imports.
"""
