"""Episodes of one task and source, of which frames may be drawn."""

from __future__ import annotations

import bisect
from array import array

import numpy as np
import numpy.typing as npt


class Pool:
    """Rows of the index, rising, and how many frames of each may be drawn."""

    def __init__(self) -> None:
        self._rows, self._counts = array("i"), array("i")

    def append(self, row: int, count: int) -> None:
        """A row above all others."""
        self._rows.append(row)
        self._counts.append(count)

    def remove(self, row: int) -> None:
        """Nothing of it may be drawn any more; nothing happens if it is not here."""
        place = bisect.bisect_left(self._rows, row)
        if place < len(self._rows) and self._rows[place] == row:
            self._counts[place] = 0

    def drawable(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Rows with frames that may be drawn, and how many each has."""
        rows, counts = (np.array(column, np.int32) for column in (self._rows, self._counts))
        some = counts > 0
        return rows[some], counts[some]

    @property
    def nbytes(self) -> int:
        """Memory of both columns."""
        return 8 * len(self._rows)
