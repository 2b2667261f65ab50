"""The cloud path on an emulator, by the same program and commands."""
