"""The parts of a stack, one a file. Each takes a frozen dataclass of arguments and looks nothing up
by itself.
"""
