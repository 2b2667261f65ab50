"""A classifier that needs no download: the smallest pipeline with all of a model's life."""
