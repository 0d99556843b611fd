"""Numbers in sentences."""


def number_of(count: int, noun: str) -> str:
    """1 level, 2 levels, 1,000 levels."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
