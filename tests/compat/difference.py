"""What an allowed difference is; the table of them is differences.py."""

import re
from dataclasses import dataclass

ANY = re.compile("", re.DOTALL)


@dataclass(frozen=True)
class Difference:
    """`test` and `label` may hold * for any text. What pgweir shows must be `ours`, or match it where that is a
    compiled expression; with `adds` or `lacks` the values are lists which are equal apart from these items."""

    test: str
    label: str
    reason: str
    ours: object = None
    adds: tuple = ()
    lacks: tuple = ()

    def covers(self, theirs, ours):
        if self.adds or self.lacks:
            return (
                isinstance(theirs, list)
                and isinstance(ours, list)
                and [one for one in ours if one not in self.adds] == [one for one in theirs if one not in self.lacks]
                and all(one in ours for one in self.adds)
                and all(one in theirs for one in self.lacks)
            )
        if isinstance(self.ours, re.Pattern):
            return bool(self.ours.search(str(ours)))
        return ours == self.ours


def each(reason, ours, *places):
    """One reason for several places, each written "test | label"."""
    return [Difference(*place.split(" | "), reason, ours) for place in places]
