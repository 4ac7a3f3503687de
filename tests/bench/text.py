"""Text for the benchmarks' journals: always the same for the same seed, as skewed as real words are."""

from __future__ import annotations

import math
import random

COMMON = "delivered"
"""In two fifths of all steps."""
PHRASE = "parcel returned"
"""Of two common words; side by side in about one step of sixty."""
RARE = "quixotically"
"""In a handful of steps."""

MEDIAN, P95 = 1_024, 8_192
SIGMA = math.log(P95 / MEDIAN) / 1.645
LONGEST = 60_000
_SYLLABLES = tuple(f"{start}{end}" for start, end in zip("bcdfghjklmnpqrstvwxyz" * 2, "aeiou" * 8 + "an", strict=True))


class Texts:
    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        vocabulary = sorted({"".join(random_.choices(_SYLLABLES, k=random_.randint(1, 4))) for _ in range(9_000)})
        random_.shuffle(vocabulary)
        weights = [1 / (rank + 5) for rank in range(len(vocabulary))]
        self.sentences = [
            " ".join(random_.choices(vocabulary, weights, k=random_.randint(6, 22))).capitalize() + "."
            for _ in range(6_000)
        ]

    def size(self) -> int:
        """Characters of a step's texts: log-normal, median 1 kB, p95 8 kB."""
        return min(LONGEST, int(self.random.lognormvariate(math.log(MEDIAN), SIGMA)))

    def text(self, size: int) -> str:
        """About `size` characters, with the words that the benchmark asks for strewn in."""
        random_ = self.random
        pieces: list[str] = []
        length = 0
        while length < size:
            sentence = random_.choice(self.sentences)
            pieces.append(sentence)
            length += len(sentence) + 1
        for word, share in ((COMMON, 0.4), ("parcel", 0.3), ("returned", 0.25), (PHRASE, 0.017)):
            if random_.random() < share:
                pieces.insert(random_.randint(0, len(pieces)), word)
        return " ".join(pieces)[: max(size, 40)]
