"""What policy lines may be called, and which are known, for whoever may have made a slip."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

LINE = re.compile(r"[\w-]+")
"""What a policy line may be called."""
_NAMED = 8


def likely_first(name: str, known: Iterable[str]) -> str:
    """At most eight of the known names and how many more there are, those like `name` first; empty if none is."""
    found = set(known)
    near = get_close_matches(name, found, _NAMED)
    named = [*near, *sorted(found - set(near))][:_NAMED]
    more = f" and {len(found) - len(named)} more" if len(found) > len(named) else ""
    return ", ".join(named) + more
