"""Names of the environment variables by which the pipeline's processes are told, or tell each other, what to do."""

STARTER = "COMPENDIUM_STARTER"  # process that started the pipeline and without which it ends
WORK = "COMPENDIUM_WORK"  # where the notebook that runs puts what it makes
SCALE = "COMPENDIUM_SCALE"  # the scale it runs at
DECLARED = "COMPENDIUM_TABLES"  # the tables that its study names, comma-separated
FRESH = "COMPENDIUM_FRESH"  # rows kept in git don't stand for runs
CLUSTER = "COMPENDIUM_CLUSTER"  # set by the user: address of a Dask scheduler, for the runs to go there
DEVICE = "ACCELERATE_TORCH_DEVICE"  # what accelerate takes for its choice: set by the user, or to the CPU by the scale
