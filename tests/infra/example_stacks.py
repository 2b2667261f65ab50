"""Stacks as users have them, recorded once for all the tests of a process."""

import gc
import json
from functools import cache
from typing import Any

from infra.estimate.recorder import Recording, run
from trainyard.contract.readiness import Servers, note

DIGEST = f"registry.example/trainyard/flow@sha256:{'a' * 64}"
KEY_ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:trainyard-prefect-AbCdEf"
CLOUD: dict[str, Any] = {
    "prefect": "cloud",
    "prefectApiUrl": "https://api.prefect.cloud/api/accounts/a/workspaces/w",
    "prefectApiKeySecretArn": KEY_ARN,
}
OWN_VPC: dict[str, Any] = {
    "vpcId": "vpc-0a",
    "subnetIds": ["subnet-0a", "subnet-0b"],
    "assignPublicIp": True,
}
SERVED: dict[str, Any] = {"serve": ["taxi-trip-duration"], "serveFromCidrs": ["10.8.0.0/16"]}
HTTPS: dict[str, Any] = {
    "serveFromSecurityGroups": ["sg-0a"],
    "serveMaxTasks": 4,
    "serveDomain": "models.example.com",
    "serveCertificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/0a-b",
}
IMAGES: dict[str, Any] = {"flowImage": DIGEST, "workerImage": DIGEST, "mlflowImage": DIGEST}
READY = note(Servers(mlflow=DIGEST, prefect=DIGEST))
SOURCES: dict[str, Any] = {"sourcePrefixes": ["s3://lake/taxi/"]}
GITHUB: dict[str, Any] = {
    "kind": "account",
    "githubRepository": "acme/rides",
    "githubOwnerId": "11",
    "githubRepositoryId": "22",
    "stateBucket": "acme-state",
    "stateKeyArn": "arn:aws:kms:eu-central-1:123456789012:key/0a-b",
}
STACKS: dict[str, dict[str, Any]] = {
    "account": {"stack": "account", **GITHUB, **SOURCES},
    "minimal": {"profile": "minimal", "noted": READY, **IMAGES},
    "standard": {"profile": "standard", "noted": READY, **IMAGES, **SOURCES, **SERVED},
    "ha": {"profile": "ha", "noted": READY, **IMAGES, **SOURCES, **SERVED, **HTTPS},
    "cloud": {"profile": "minimal", "noted": READY, **CLOUD, **IMAGES, **SOURCES},
    "existing-vpc": {"profile": "standard", **OWN_VPC, **SOURCES},
    "isolated": {"profile": "minimal", "interfaceEndpoints": True, **SOURCES},
    "bring-all": {
        "accountId": "123456789012",
        "trackingUri": "https://mlflow.example",
        **CLOUD,
        **OWN_VPC,
    },
}


def recorded(stack: str = "dev", **given: Any) -> Recording:
    """What the recorder's `run` gives; the same settings are run once. Nobody changes it."""
    return _recorded(stack, json.dumps(given, sort_keys=True))


@cache
def _recorded(stack: str, given: str) -> Recording:
    gc.disable()  # it looks through all of pulumi_aws, which takes as long again
    try:
        return run(stack, **json.loads(given))
    finally:
        gc.enable()


def stack(name: str) -> Recording:
    """One of STACKS."""
    return recorded(**STACKS[name])
