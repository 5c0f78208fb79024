"""From systems and test pictures to results: the protocols of the papers."""
