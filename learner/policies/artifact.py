"""A policy as bytes: safetensors, with its spec as JSON in the metadata. No pickle, and no torch to read it.

The same spec and weights always give the same bytes, so that a sha256 names a policy.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import ValidationError
from safetensors import SafetensorError

from infra.payload_names import METADATA_KEY, document_in
from learner.errors import InvalidArtifact, WeightsNotFinite
from learner.policies.base import PolicySpec

Arrays = Mapping[str, npt.NDArray[Any]]


def pack(spec: PolicySpec, weights: Arrays) -> bytes:
    """Artifact of a policy: `weights` by name, any shape, usually float32.

    Raises:
        WeightsNotFinite: one of them is no number; a robot would send it to its motors.
    """
    if broken := _not_finite(weights):
        raise WeightsNotFinite(f"the policy's {broken} is not finite after training: roll back to a good version")
    return pack_json(spec.document(), weights)


def unpack(data: bytes) -> tuple[PolicySpec, dict[str, npt.NDArray[Any]]]:
    """Spec and weights of an artifact.

    Raises:
        InvalidArtifact: the bytes are no policy of ours, or one with weights that are no numbers.
    """
    document, weights = unpack_json(data)
    try:
        spec = PolicySpec.model_validate(document)
    except ValidationError as error:
        raise InvalidArtifact(f"the metadata are no policy's: {error.errors()[0]['msg']}") from error
    if spec.format != 1:
        raise InvalidArtifact(f"format {spec.format} is not known here (only 1)")
    if broken := _not_finite(weights):
        raise InvalidArtifact(f"{broken} is not finite")
    return spec, weights


def _not_finite(weights: Arrays) -> str | None:
    return next((name for name, w in weights.items() if w.dtype.kind == "f" and not np.isfinite(w).all()), None)


def pack_json(document: object, tensors: Arrays) -> bytes:
    """A safetensors file with one JSON document; tensors are stored in the order of dtype and name."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # safetensors writes the buffer of an array as it lies in memory: a transposed view would be scrambled.
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return safetensors.numpy.save(contiguous, metadata={METADATA_KEY: text})


def unpack_json(data: bytes) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    """The JSON document and the tensors of such a file.

    Raises:
        InvalidArtifact: it is none.
    """
    try:
        tensors = safetensors.numpy.load(data)
        return document_in(data), tensors
    except (SafetensorError, KeyError, ValueError, struct.error) as error:
        raise InvalidArtifact(f"not a safetensors file of ours: {error!r}") from error
