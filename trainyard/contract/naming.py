"""Names. Physical ones are fixed only where something outside relies on them; Pulumi makes others.

A logical name begins with the stack's prefix, so that what Pulumi makes of it (the name and 8 more
characters) does too: that is how roles can be limited to "the stack's own resources".
"""

from dataclasses import dataclass

# The images of a stack; each has a repository of its name.
IMAGES = ("flow", "worker", "mlflow")
BUILD_CACHE = "buildcache"
STACK_TAG = "trainyard-stack"
# The stack that lives on an emulator: its commands start one.
REHEARSAL = "rehearsal"
# What starts so belongs to Trainyard's stacks; nothing else is touched.
OWN = "trainyard-*"
# The GitHub environment whose jobs may only look.
PREVIEW_ENVIRONMENT = "preview"
# The policy that bounds every role of the stacks (infra/components/boundary.py).
BOUNDARY = "trainyard-boundary"


@dataclass(frozen=True)
class Names:
    """The names of one stack."""

    stack: str

    @property
    def prefix(self) -> str:
        return f"trainyard-{self.stack}"

    def __call__(self, part: str) -> str:
        return f"{self.prefix}-{part}"

    def log_group(self, part: str) -> str:
        return f"/trainyard/{self.stack}/{part}"

    @property
    def parameters(self) -> str:
        """Where the stack's parameters are in Systems Manager's store."""
        return f"/trainyard/{self.stack}"

    def parameter(self, part: str) -> str:
        return f"{self.parameters}/{part}"

    @property
    def namespace(self) -> str:
        return f"{self.stack}.trainyard.internal"


# Parameters of a stack: StackOutputs; which servers' schemas are as their images want them; the
# release that it was last told to run; those whose smoke run completed.
OUTPUTS, READY, RELEASE, RELEASES = "outputs", "ready", "release", "releases"


def repository(name: str) -> str:
    return f"trainyard/{name}"


@dataclass(frozen=True)
class Location:
    """Where a stack lives: plain values, known before anything is created."""

    partition: str
    account: str
    region: str

    def arn(self, service: str, resource: str, *, account: str | None = None) -> str:
        owner = account or self.account
        return f"arn:{self.partition}:{service}:{self.region}:{owner}:{resource}"

    def global_arn(self, service: str, resource: str) -> str:
        """The ARN of a resource that belongs to no region, as IAM's do."""
        return f"arn:{self.partition}:{service}::{self.account}:{resource}"

    def bucket_arn(self, name: str) -> str:
        return f"arn:{self.partition}:s3:::{name}"

    @property
    def boundary_arn(self) -> str:
        return self.global_arn("iam", f"policy/{BOUNDARY}")

    def registry(self, account: str = "") -> str:
        """The host of an account's image registry."""
        suffix = "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"
        return f"{account or self.account}.dkr.ecr.{self.region}.{suffix}"
