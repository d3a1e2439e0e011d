"""Training runs: recipes, data, MONAI's engine, and what they leave behind."""
