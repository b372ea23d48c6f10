"""Base models: small language models trained from scratch on real facts and prose, which studies go on from."""
