"""ImageRegistry: the account's image repositories. A tag, once pushed, never moves; deployments go
by digest.
"""

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Output, ResourceOptions

from trainyard.contract.naming import BUILD_CACHE, IMAGES, repository

# Enough to roll back to for months of daily deployments; older images are storage nobody will
# start.
IMAGES_KEPT = 60


@dataclass(frozen=True)
class ImageRegistryArgs:
    """Arguments of ImageRegistry."""

    durable: bool


class ImageRegistry(pulumi.ComponentResource):
    """Create an ECR repository for each of Trainyard's images, and one for the build cache.

    Tags of images never move, and the newest 60 images are kept.

    Inputs: `durable` protects the repositories, but not the cache's.
    Outputs: `urls`, a repository's address by image.
    Idle cost: by use, 0.10 $ a GB and month.
    """

    urls: dict[str, Output[str]]

    def __init__(self, name: str, args: ImageRegistryArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:images:ImageRegistry", name, None, opts)
        self.urls = {}
        for image in (*IMAGES, BUILD_CACHE):
            cache = image == BUILD_CACHE
            repo = aws.ecr.Repository(
                f"{name}-{image}",
                name=repository(image),
                # The cache's tags are moved by every build: the reason it has a repository of its
                # own.
                image_tag_mutability="MUTABLE" if cache else "IMMUTABLE",
                image_scanning_configuration={"scan_on_push": True},
                encryption_configurations=[{"encryption_type": "KMS"}],
                force_delete=cache or not args.durable,
                opts=ResourceOptions(parent=self, protect=args.durable and not cache),
            )
            aws.ecr.LifecyclePolicy(
                f"{name}-{image}",
                repository=repo.name,
                policy=json.dumps({"rules": _rules(cache=cache)}),
                opts=ResourceOptions(parent=self),
            )
            self.urls[image] = repo.repository_url
        self.register_outputs({"urls": self.urls})


def _rules(*, cache: bool) -> list[dict[str, object]]:
    def rule(priority: int, what: str, selection: dict[str, object]) -> dict[str, object]:
        return {
            "rulePriority": priority,
            "description": what,
            "selection": selection,
            "action": {"type": "expire"},
        }

    untagged = {
        "tagStatus": "untagged",
        "countType": "sinceImagePushed",
        "countUnit": "days",
        "countNumber": 7,
    }
    if cache:
        return [rule(1, "layers that no cache tag names any more", untagged)]
    newest = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": IMAGES_KEPT}
    return [
        rule(1, "failed pushes", untagged),
        rule(2, f"all but the newest {IMAGES_KEPT}", newest),
    ]
