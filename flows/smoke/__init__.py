"""The smallest run that shows a stack works."""
