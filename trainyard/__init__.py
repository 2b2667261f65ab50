"""The tool that operates stacks. Users call it and never edit it: a newer one replaces it whole."""
