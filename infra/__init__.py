"""Infrastructure: each target ends in one StackOutputs."""
