"""Which partition a key means: what `PARTITIONER` has librdkafka do, for who only reads."""

from __future__ import annotations

_MASK, _M = 0xFFFFFFFF, 0x5BD1E995


def partition_of(key: bytes, partitions: int) -> int:
    """Number of the partition that holds a key, of so many."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """The Java client's hash; unsigned 32 bits."""
    h = (0x9747B28C ^ len(data)) & _MASK
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if len(data) > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)
