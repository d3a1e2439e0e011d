"""What ``quality.py`` is made of: the data that were held back, the methods, the scores and the pictures."""
