"""The runs of the alignment study: models to start from, references, and fine-tunings by preference pairs.

Import from the modules: a run is keyed by the code that it imports.
"""

import warnings

# peft asks transformers for a property by its old name, and looks for the base model's folder, which for a model that
# was just packed is gone: neither is about anything that a reader of these runs could mend, and both repeat each run.
for message in ("`is_gradient_checkpointing` is deprecated", "Could not find a config file in"):
    warnings.filterwarnings("ignore", message=message)
