"""Which Kafka a bucket belongs to, written in the bucket itself.

A Kafka that was set up anew knows nothing of what its predecessor announced: seen from there, everything in the
bucket is garbage. So whoever removes something asks first whether this is the Kafka that filled the bucket.
"""

from __future__ import annotations

import json

from infra.errors import DeploymentConflict, ObjectMissing
from infra.object_store import ObjectStore

KEY = "system/kafka-cluster.json"


def owner_of(objects: ObjectStore) -> str | None:
    """Id of the cluster that a bucket belongs to; None if nobody wrote it down yet.

    Raises:
        DeploymentConflict: what is written there cannot be read.
    """
    try:
        return str(json.loads(objects.get(KEY))["cluster_id"])
    except ObjectMissing:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DeploymentConflict(
            f"{objects.uri(KEY)} does not say which Kafka the bucket belongs to ({error!r}). Once you are sure "
            "that it is this one, delete that object and run `sop deploy`"
        ) from error


def write_owner(objects: ObjectStore, cluster: str) -> None:
    """Say that a bucket belongs to this cluster from now on."""
    objects.put(KEY, json.dumps({"cluster_id": cluster}).encode())


def refuse_another(objects: ObjectStore, cluster: str) -> None:
    """Do nothing if a bucket belongs to this cluster, or to none yet.

    Raises:
        DeploymentConflict: it belongs to another one.
    """
    owner = owner_of(objects)
    if owner not in (None, cluster):
        raise DeploymentConflict(
            f"bucket {objects.bucket} was filled from Kafka cluster {owner}, and this is cluster {cluster}, which "
            "does not know what that one announced. Nothing was removed. If Kafka was lost: docs/operations.md, "
            "Kafka lost training-episodes. If its topics were brought over whole: say so by `sop gc --adopt`"
        )
