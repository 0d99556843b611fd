"""Kernels laid beside each other as one picture, for the page and for figures."""

from math import log

import numpy as np

MOST = 64
"""Filters that a picture shows."""


class Mosaic:
    """Where the kernels of a convolution [filters, channels, h, w] are in a picture: of each filter the channels one
    below the other, filters row by row with a blank cell between them; so many in a row that the picture comes near to
    `aspect` and the last row is not left empty."""

    def __init__(self, shape: tuple[int, int, int, int], aspect: float):
        """`aspect`: width / height."""
        count, self.channels, self.h, self.w = shape
        self.count = min(count, MOST)
        self.columns = min(range(1, self.count + 1), key=lambda n: self._misfit(n, aspect))

    def _misfit(self, columns: int, aspect: float) -> float:
        empty = -self.count % columns / (self.count + -self.count % columns)
        return abs(log(self._width(columns) / self._height(columns) / aspect)) + 2 * empty

    def _width(self, columns: int) -> int:
        return columns * (self.w + 1) - 1

    def _height(self, columns: int) -> int:
        return -(-self.count // columns) * (self.channels * self.h + 1) - 1

    def corner(self, i: int) -> tuple[int, int]:
        """Row and column of the cell where filter i begins."""
        row, column = divmod(i, self.columns)
        return row * (self.channels * self.h + 1), column * (self.w + 1)

    def picture(self, kernels: np.ndarray) -> np.ndarray:
        """The picture of kernels of that shape, NaN between them."""
        cells = np.full((self._height(self.columns), self._width(self.columns)), np.nan)
        for i in range(self.count):
            top, left = self.corner(i)
            cells[top : top + self.channels * self.h, left : left + self.w] = kernels[i].reshape(-1, self.w)
        return cells

    def outlines(self) -> tuple[list[float | None], list[float | None]]:
        """x and y of a line around each kernel of each filter, cells being 1 wide around whole numbers; None between
        two lines."""
        x: list[float | None] = []
        y: list[float | None] = []
        for i in range(self.count):
            row, column = self.corner(i)
            left, right = column - 0.5, column + self.w - 0.5
            for channel in range(self.channels):
                top, bottom = (row + (channel + end) * self.h - 0.5 for end in (0, 1))
                x += [left, right, right, left, left, None]
                y += [top, top, bottom, bottom, top, None]
        return x, y
