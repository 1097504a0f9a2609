"""Ways to train: a recipe is a Python function that returns a frozen dataclass."""
