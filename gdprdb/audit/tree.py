"""The Merkle tree of RFC 6962, section 2.1: leaves and nodes are hashed apart."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

#: What a tree without leaves hashes to.
EMPTY = sha256(b"").digest()


def leaf_hash(record: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\0" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its children."""
    return sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that grows leaf by leaf and remembers one hash for each level."""

    def __init__(self) -> None:
        self.size = 0
        #: Hashes of whole subtrees, the largest first, with the number of their leaves.
        self._peaks: list[tuple[int, bytes]] = []
        self._path: list[tuple[str, bytes]] | None = None
        #: In which of the peaks the leaf is whose path is wanted, from the first.
        self._above = -1

    def add(self, leaf: bytes, *, wanted: bool = False) -> None:
        """Add the hash of the next leaf.

        Args:
            leaf: the hash.
            wanted: it is the leaf that `path` is asked for later.
        """
        self.size += 1
        leaves, peaks = 1, self._peaks
        if wanted:
            self._path, self._above = [], len(peaks)
        while peaks and peaks[-1][0] == leaves:
            left = peaks.pop()[1]
            if self._path is not None:
                self._pair(len(peaks), left, leaf)
            leaf = node_hash(left, leaf)
            leaves *= 2
        peaks.append((leaves, leaf))

    def _pair(self, place: int, left: bytes, right: bytes) -> None:
        """Two peaks, from this one on, become one: the sibling is the next step of the path."""
        assert self._path is not None
        if self._above == place:
            self._path.append(("right", right))
        elif self._above == place + 1:
            self._path.append(("left", left))
            self._above = place

    def root(self) -> bytes:
        """The hash of the tree as it is now."""
        if not self._peaks:
            return EMPTY
        _, root = self._peaks[-1]
        for _, peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def path(self) -> list[tuple[str, bytes]] | None:
        """What leads from the wanted leaf to the root of the tree as it is now.

        Returns:
            The siblings from the leaf upwards, each with its side, ``left`` or ``right``; None
            where no leaf was wanted.
        """
        if self._path is None:
            return None
        path, peaks = list(self._path), [peak for _, peak in self._peaks]
        # the peaks to its right are one node, those to its left come one after the other
        if self._above < len(peaks) - 1:
            right = peaks[-1]
            for peak in reversed(peaks[self._above + 1 : -1]):
                right = node_hash(peak, right)
            path.append(("right", right))
        path += [("left", peak) for peak in reversed(peaks[: self._above])]
        return path


def follow(leaf: bytes, path: Sequence[tuple[str, bytes]]) -> bytes:
    """The root that a leaf and its path lead to."""
    for side, sibling in path:
        leaf = node_hash(sibling, leaf) if side == "left" else node_hash(leaf, sibling)
    return leaf
