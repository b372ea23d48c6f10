"""Domain experts and aligned generalists from one base, what becomes of them when merged, and what each can do."""
