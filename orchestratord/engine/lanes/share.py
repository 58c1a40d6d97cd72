"""What one worker may have of what all workers of a run may have together."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Share:
    """The share of worker `number`, from 1, among `count`; a daemon without others has it all.

    What does not divide evenly goes to one worker for one name and to another for another, so that
    lanes with few slots are spread over all of them.
    """

    number: int = 1
    count: int = 1

    def bounded(self, slots: int) -> Share:
        """This share of only so many slots: other workers have none."""
        return Share(self.number, min(self.count, slots))

    def of(self, total: int, name: str = "") -> int:
        """How many of `total` slots of the lane `name` are this worker's."""
        if self.number > self.count:
            return 0
        each, rest = divmod(total, self.count)
        place = (self.number - 1 + crc32(name.encode())) % self.count
        return each + (place < rest)
