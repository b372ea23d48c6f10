"""Shared helpers of the compendium: each file one idea, arrows between files point one way."""
