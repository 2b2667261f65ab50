"""Commands of this machine that the tool calls (git, docker, gh), and what it prints."""
