"""The only statements that are for every resource.

It imports nothing of ours: the policy pack reads it too, in an environment of its own.
"""

from collections.abc import Mapping

# Each by its Sid, and why it can't be narrower. A test holds this list to what the stacks contain.
UNSCOPED: Mapping[str, str] = {
    "RegistryLogin": "GetAuthorizationToken knows no resource; PullImages bounds what it opens.",
    "DescribeTaskDefinitions": "DescribeTaskDefinition knows no resource.",
    "Tunnel": "The ssmmessages actions know no resource; a session reaches its own task.",
    "ReadForPlans": "Configuration for previews: most of it knows no resource. No data is read.",
    "DeployUnscoped": "Actions that create what has no name yet, or that know no resource.",
}
