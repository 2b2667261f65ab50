"""The smallest pipeline with a loop: the stars of repositories, asked for at once."""
