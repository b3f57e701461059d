"""How long things last in a run: what members wait for, and the faults that outlast it. Seconds.

A fault that is over before anybody's patience is proves nothing about patience.
"""

from __future__ import annotations

EPISODE_TIMEOUT = 3.0
"""Instead of ten minutes, so that hours can pass in a test."""
S3_TIMEOUT = 2.0
CLICKHOUSE_TIMEOUT = 3.0
"""Bounds of one request."""
SESSION = 8.0
"""A zombie sleeps so long; the local broker gives a silent member up after 6."""
STALL = 2 * S3_TIMEOUT
"""A stalled server does not answer for so long: what was asked in the first half of it times out."""
CLICKHOUSE_STALL = CLICKHOUSE_TIMEOUT + 2.0
OUTAGE = 2 * EPISODE_TIMEOUT + 0.5
"""A long outage: what was open when it began waits for more than the timeout, and may still be whole."""

LEAST = {"s3-stall": STALL, "clickhouse-stall": CLICKHOUSE_STALL}
"""What a fault of these kinds lasts at least."""
OUTAGES = (
    "broker-kill",
    "s3-kill",
    "s3-stall",
    "s3-errors",
    "clickhouse-kill",
    "clickhouse-stall",
    "registry-outage",
)
"""Kinds of which some last `OUTAGE`."""
LONG_SHARE = 0.3
"""How many of them."""
