"""Whether results are what they say they are: what made them, and how well they agree with those that git holds."""
