"""A held-out part of a data set that stays the same when pictures are added."""

from collections.abc import Sequence
from hashlib import blake2b


def holdout(
    names: Sequence[str],
    amount: float,
    seed: int = 0,
    *,
    contents: Sequence[str] | None = None,
) -> tuple[list[int], list[int]]:
    """Split indices into (training, validation), both ascending.

    Each name decides for itself by its hash, so adding pictures moves no other picture.

    Args:
        names: one per sample.
        amount: below 1, the expected fraction to hold out (the exact number varies a little with
            the names, but is at least 1); from 1 on, the number of samples to hold out.
        seed: another seed, another split.
        contents: a digest per sample; samples of equal digest stay on one side.

    Raises:
        ValueError: `amount` is negative, or as many samples as there are.
    """
    if amount < 0 or amount >= max(len(names), 1) or (amount >= 1 and amount != int(amount)):
        raise ValueError(
            f"holdout: expected a fraction below 1 or a whole number below {len(names)} samples, "
            f"got {amount}"
        )
    leaders: dict[str, str] = {}
    for name, content in zip(names, contents or names, strict=True):
        leaders[content] = min(name, leaders.get(content, name))
    ranks = [_rank(leaders[content], seed) for content in contents or names]
    if amount == 0:
        limit = -1.0
    elif amount < 1:
        limit = max(amount, min(ranks))
    else:
        limit = sorted(ranks)[int(amount) - 1]
    training = [index for index, rank in enumerate(ranks) if rank > limit]
    return training, [index for index, rank in enumerate(ranks) if rank <= limit]


def _rank(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on the name and the seed only."""
    digest = blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
