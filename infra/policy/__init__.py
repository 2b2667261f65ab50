"""The rules that every preview of a stack checks."""
