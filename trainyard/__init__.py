"""The tool that operates stacks. Users call it and never edit it: a newer one replaces it whole."""

__version__ = "0.1.0"
