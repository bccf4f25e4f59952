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

    def add(self, leaf: bytes) -> None:
        """Add the hash of the next leaf."""
        self.size += 1
        leaves, peaks = 1, self._peaks
        while peaks and peaks[-1][0] == leaves:
            leaf = node_hash(peaks.pop()[1], leaf)
            leaves *= 2
        peaks.append((leaves, leaf))

    def root(self) -> bytes:
        """The hash of the tree as it is now."""
        if not self._peaks:
            return EMPTY
        _, root = self._peaks[-1]
        for _, peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def audit_path(leaves: Sequence[bytes], index: int) -> list[tuple[str, bytes]]:
    """What leads from a leaf to the root.

    Args:
        leaves: the hashes of all leaves.
        index: of the leaf, from 0.

    Returns:
        The siblings from the leaf upwards, each with its side, ``left`` or ``right``.
    """
    path: list[tuple[str, bytes]] = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(("left" if sibling < index else "right", level[sibling]))
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [node_hash(left, right) for left, right in pairs] + odd
        index //= 2
    return path


def follow(leaf: bytes, path: Sequence[tuple[str, bytes]]) -> bytes:
    """The root that a leaf and its path lead to."""
    for side, sibling in path:
        leaf = node_hash(sibling, leaf) if side == "left" else node_hash(leaf, sibling)
    return leaf
