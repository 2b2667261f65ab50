"""A fraud classifier: a CSV of card transactions in, a model with its threshold out."""
