"""ArtifactStore: the bucket of results, models and data. Private, versioned, encrypted, over TLS
only.
"""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Output, ResourceOptions

from infra.components import iam
from trainyard.contract.naming import Location

# Flows' own results and data, and MLflow's artifacts: each has its reader, so each has its prefix.
FLOWS, MLFLOW, TEMPORARY = "flows/", "mlflow/", "flows/tmp/"
# What served models were asked, a folder a model.
REQUESTS = f"{FLOWS}served/"


@dataclass(frozen=True)
class ArtifactStoreArgs:
    """Arguments of ArtifactStore."""

    location: Location
    customer_key: bool
    access_logs: bool
    durable: bool
    log_days: int
    request_days: int


class ArtifactStore(pulumi.ComponentResource):
    """Create the bucket of results, models and data: private, versioned, encrypted, TLS only.

    Overwritten and deleted objects stay for 30 days, temporary ones for 7, served models' requests
    for `request_days`.

    Inputs: `customer_key` adds a KMS key of its own, `access_logs` a second bucket that keeps them
    for `log_days`; `durable` protects bucket and key from `make down`.
    Outputs: `bucket`, `arn`; `flows_uri`, where flows keep what they write; `key_arn`, which is
    None without a key.
    Idle cost: 1 $ a month for the key, if any; the rest by use, 0.023 $ a GB and month.
    """

    bucket: Output[str]
    flows_uri: Output[str]
    arn: Output[str]
    key_arn: Output[str] | None

    def __init__(self, name: str, args: ArtifactStoreArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:storage:ArtifactStore", name, None, opts)
        key = self._key(name, args) if args.customer_key else None
        bucket, policy = self._bucket(name, args, key)
        aws.s3.BucketLifecycleConfiguration(
            f"{name}-lifecycle",
            bucket=bucket.bucket,
            rules=[
                {
                    "id": "abandoned-uploads",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
                },
                {
                    # What was overwritten or deleted can be brought back for a month.
                    "id": "old-versions",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    "noncurrent_version_expiration": {"noncurrent_days": 30},
                },
                {
                    "id": "temporary",
                    "status": "Enabled",
                    "filter": {"prefix": TEMPORARY},
                    "expiration": {"days": 7},
                },
                {
                    "id": "requests",
                    "status": "Enabled",
                    "filter": {"prefix": REQUESTS},
                    "expiration": {"days": args.request_days},
                },
            ],
            opts=ResourceOptions(parent=self, depends_on=[policy]),
        )
        if args.access_logs:
            self._access_logs(name, args, bucket)
        self.bucket, self.arn = bucket.bucket, bucket.arn
        self.flows_uri = Output.format("s3://{0}/{1}", bucket.bucket, FLOWS[:-1])
        self.key_arn = key.arn if key else None
        self.register_outputs({"bucket": self.bucket})

    def _key(self, name: str, args: ArtifactStoreArgs) -> aws.kms.Key:
        key = aws.kms.Key(
            f"{name}-key",
            description=f"What {name} holds",
            enable_key_rotation=True,
            deletion_window_in_days=30 if args.durable else 7,
            # Who may use the key is left to the roles' own policies.
            policy=iam.document(iam.key_owner(args.location)),
            opts=ResourceOptions(parent=self, protect=args.durable),
        )
        aws.kms.Alias(
            f"{name}-key",
            name=f"alias/{name}",
            target_key_id=key.key_id,
            opts=ResourceOptions(parent=self),
        )
        return key

    def _bucket(
        self, name: str, args: ArtifactStoreArgs, key: aws.kms.Key | None, logs: bool = False
    ) -> tuple[aws.s3.Bucket, aws.s3.BucketPolicy]:
        """A bucket as every bucket of ours is, and its policy (after which it can be configured
        further).
        """
        inside = ResourceOptions(parent=self)
        bucket = aws.s3.Bucket(
            f"{name}-bucket",
            force_destroy=not args.durable,
            opts=ResourceOptions(parent=self, protect=args.durable),
        )
        aws.s3.BucketVersioning(
            f"{name}-versioning",
            bucket=bucket.bucket,
            versioning_configuration={"status": "Enabled"},
            opts=inside,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encryption",
            bucket=bucket.bucket,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms",
                        "kms_master_key_id": key.arn,
                    },
                    "bucket_key_enabled": True,  # one call to KMS a bucket, not one an object
                }
                if key
                else {"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}
            ],
            opts=inside,
        )
        owner = aws.s3.BucketOwnershipControls(
            f"{name}-ownership",
            bucket=bucket.bucket,
            rule={"object_ownership": "BucketOwnerEnforced"},
            opts=inside,
        )
        block = aws.s3.BucketPublicAccessBlock(
            f"{name}-public-access",
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=inside,
        )
        statements = [*iam.tls_only(bucket.arn)]
        if logs:
            statements.append(iam.receive_access_logs(bucket.arn, args.location))
        policy = aws.s3.BucketPolicy(
            f"{name}-policy",
            bucket=bucket.bucket,
            policy=iam.document(*statements),
            # S3 refuses two changes of a bucket's access at a time.
            opts=ResourceOptions(parent=self, depends_on=[block, owner]),
        )
        return bucket, policy

    def _access_logs(self, name: str, args: ArtifactStoreArgs, bucket: aws.s3.Bucket) -> None:
        # Log delivery can't use a customer's key policy-free, so the log bucket stays with S3's own
        # encryption.
        logs, policy = self._bucket(f"{name}-access-logs", args, key=None, logs=True)
        aws.s3.BucketLifecycleConfiguration(
            f"{name}-access-logs-lifecycle",
            bucket=logs.bucket,
            rules=[
                {
                    "id": "expire",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    "expiration": {"days": args.log_days},
                    "noncurrent_version_expiration": {"noncurrent_days": 1},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
                }
            ],
            opts=ResourceOptions(parent=self, depends_on=[policy]),
        )
        aws.s3.BucketLogging(
            f"{name}-logging",
            bucket=bucket.bucket,
            target_bucket=logs.bucket,
            target_prefix="s3/",
            opts=ResourceOptions(parent=self, depends_on=[policy]),
        )
