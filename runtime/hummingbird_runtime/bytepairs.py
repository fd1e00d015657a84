"""Byte-pair encoding of one word, and the byte-level alphabet of GPT-2 and CLIP.

Every byte is written as one printable character, so a vocabulary is plain text; the last symbol of
a word carries ``</w>``. Merging is exact and takes n log n time, so no prompt can stall it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

END_OF_WORD = "</w>"
Pair = tuple[str, str]


def byte_alphabet() -> dict[int, str]:
    """Byte -> character, in CLIP's order: printable Latin-1 first, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    characters = [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(len(rest))]
    return dict(zip(printable + rest, characters, strict=True))


def build_vocabulary(merges: Iterable[Pair], special: Iterable[str]) -> dict[str, int]:
    """Token -> id in CLIP's order: 256 bytes, 256 bytes at a word's end, merges, special tokens."""
    alphabet = list(byte_alphabet().values())
    tokens = alphabet + [character + END_OF_WORD for character in alphabet]
    tokens += [first + second for first, second in merges]
    return {token: index for index, token in enumerate([*tokens, *special])}


def merge_word(symbols: list[str], ranks: Mapping[Pair, int]) -> list[str]:
    """Merge one word's symbols, the best-ranked pair first, all its places from left to right.

    Args:
        symbols: the word as byte characters, the last one ending in ``</w>``; it is used up.
        ranks: pair -> rank, 0 merges first.
    """
    end = len(symbols)
    following = list(range(1, end + 1))
    preceding = list(range(-1, end - 1))
    alive = [True] * end

    def candidate(left: int) -> tuple[int, int] | None:
        right = following[left] if left >= 0 else end
        rank = ranks.get((symbols[left], symbols[right])) if right < end else None
        return None if rank is None else (rank, left)

    heap = [found for found in map(candidate, range(end)) if found is not None]
    heapq.heapify(heap)
    while heap:
        rank = heap[0][0]
        touched: set[int] = set()
        # one pass over all places of this pair; pairs it creates wait for the next pass
        while heap and heap[0][0] == rank:
            _, left = heapq.heappop(heap)
            if not alive[left] or candidate(left) != (rank, left):
                continue
            right = following[left]
            symbols[left] += symbols[right]
            alive[right] = False
            following[left] = following[right]
            if following[left] < end:
                preceding[following[left]] = left
            touched.update((left, preceding[left]))
        for left in touched:
            found = candidate(left) if left >= 0 and alive[left] else None
            if found is not None:
                heapq.heappush(heap, found)
    return [symbol for symbol, kept in zip(symbols, alive, strict=True) if kept]
