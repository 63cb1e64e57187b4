"""How long inference takes by the multiply-accumulates spent, learned from what it took."""

from __future__ import annotations

# Of what older batches told, how much counts when another has run; and of what their images spent of late.
_REMEMBERED, _RECENTLY = 0.995, 0.98
# Below this spread of what they spent, relative to its mean, they say nothing of more or less.
_TELLING = 0.02


class InferenceCost:
    """A line through (multiply-accumulates, seconds) of batches, by least squares, of which older ones fade.

    Where all batches spent about the same, time is taken to be in proportion.
    """

    def __init__(self) -> None:
        self._weight = self._macs = self._seconds = self._macs_squared = self._products = 0.0
        self._decode_s = 0.0
        self._recent_images = self._recent_macs = 0.0

    def note(self, macs: int, seconds: float, decode_s: float, images: int = 1) -> None:
        """Tell what a batch of so many images spent and took, and how long decoding one of them took."""
        x = macs / 1e6
        self._weight = _REMEMBERED * self._weight + 1
        self._macs = _REMEMBERED * self._macs + x
        self._seconds = _REMEMBERED * self._seconds + seconds
        self._macs_squared = _REMEMBERED * self._macs_squared + x * x
        self._products = _REMEMBERED * self._products + x * seconds
        self._decode_s = _REMEMBERED * self._decode_s + decode_s
        self._recent_images = _RECENTLY * self._recent_images + images
        self._recent_macs = _RECENTLY * self._recent_macs + macs

    @property
    def decode_s(self) -> float:
        """Mean seconds to decode an image; 0 before any was."""
        return self._decode_s / self._weight if self._weight else 0.0

    @property
    def recent_macs(self) -> float:
        """Mean multiply-accumulates of an image of late; 0 before any has run."""
        return self._recent_macs / self._recent_images if self._recent_images else 0.0

    def seconds(self, macs: float) -> float:
        """How long an image that spends so much is likely to take; 0 before anything has run."""
        if not self._weight:
            return 0.0
        mean_x, mean_s = self._macs / self._weight, self._seconds / self._weight
        variance = self._macs_squared / self._weight - mean_x**2
        x = macs / 1e6
        if variance <= (_TELLING * mean_x) ** 2:
            return mean_s * x / mean_x if mean_x else mean_s
        slope = (self._products / self._weight - mean_x * mean_s) / variance
        # More work never takes less time, and none takes less than none: noise may say so.
        slope = min(max(slope, 0.0), mean_s / mean_x)
        return mean_s + slope * (x - mean_x)
