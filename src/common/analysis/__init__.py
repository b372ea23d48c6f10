"""From a study's runs to what its claims and figures rest on, one module for each study."""
