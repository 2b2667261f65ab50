"""What the Pulumi program and the tool share: settings, names, StackOutputs, releases, gating."""
