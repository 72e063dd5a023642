"""Colour histograms: what a picture's colours are, with nothing to train."""

from __future__ import annotations

from typing import Any

from tfmmrank.encoders.base import image_encoders
from tfmmrank.encoders.pictures import PictureEncoder
from tfmmrank.stack import keras, tf

_BINS = (12, 4, 4)  # of hue, saturation and value
_WIDTH = _BINS[0] * _BINS[1] * _BINS[2]


@image_encoders.register("colours")
@keras.utils.register_keras_serializable("tfmmrank")
class ColourEncoder(PictureEncoder):
    """Histograms of hue, saturation and value [Swain and Ballard, 1991], 12 x 4 x 4 bins, as square roots of shares.

    Pure colours (red, yellow, green, ...) are in the middle of their bins of hue, so that no noise moves them out.
    Networks trained to name objects learn to look past colour; shoppers ask for it. The roots make a dot product
    of two vectors the Bhattacharyya coefficient of their histograms. Tokens are the cells of a grid.

    Args:
        size: pictures are resized to this height and width in pixels.
        crop: see ``PictureEncoder``; less than the whole leaves out some of the ground.
        grid: cells a side, for the tokens; must divide ``size``.
        output, name: see ``PictureEncoder``.
        frozen_batch_norm, trainable_blocks: there is nothing to train; ``trainable_blocks`` must be 0.

    Raises:
        ValueError: for an option out of range.

    Example:
        >>> encoder = ColourEncoder()
        >>> picture = tf.io.encode_jpeg(tf.fill([40, 30, 3], tf.constant(255, tf.uint8)))
        >>> encoder(encoder.lower(encoder.preprocess(picture[None]))).values.shape
        TensorShape([1, 1, 192])
    """

    width = _WIDTH

    def __init__(self, size: int = 64, crop: float | None = 0.75, grid: int = 4, **kwargs: Any) -> None:
        super().__init__(size=size, crop=crop, **kwargs)
        if self.trainable_blocks != 0:
            raise ValueError(f"trainable_blocks is {self.trainable_blocks}, and colours have nothing to train")
        if grid < 1 or size % grid:
            raise ValueError(f"grid is {grid}, which does not divide size {size}")
        self.grid = grid

    def frozen_part(self, pixels: Any) -> Any:
        """Float pixels ``[n, size, size, 3]`` in 0 to 255 to histograms ``[n, grid, grid, 192]`` that sum to 1."""
        bin_of = _bins_of(tf.cast(pixels, tf.int32))
        row = tf.range(self.size) * self.grid // self.size
        cell = row[:, None] * self.grid + row[None, :]
        count = tf.shape(pixels)[0]
        cells = self.grid * self.grid
        segment = ((tf.range(count)[:, None, None] * cells) + cell) * self.width + bin_of
        ones = tf.ones([tf.size(segment)])  # float32 whatever the policy: bfloat16 cannot count beyond 256
        sums = tf.math.unsorted_segment_sum(ones, tf.reshape(segment, [-1]), count * cells * self.width)
        return tf.reshape(sums, [count, self.grid, self.grid, self.width]) * (cells / self.size**2)

    def _vectors(self, cells: Any, output: str | None) -> Any:
        return tf.sqrt(super()._vectors(cells, output))

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "grid": self.grid}


def _bins_of(pixels: Any) -> Any:
    """RGB ``[..., 3]`` in 0 to 255 to numbers of bins ``[...]``, all int32.

    In whole numbers: what is on the border of two bins, as many simple colours are, would be rounded to either by
    whichever machine or optimiser has it.
    """
    red, green, blue = tf.unstack(pixels, axis=-1)
    value, chroma = tf.reduce_max(pixels, -1), tf.reduce_max(pixels, -1) - tf.reduce_min(pixels, -1)
    # A hue is 0, 2 or 4 sixths of the circle and a part of one, from -1 to 1; twice that and a half are our twelfths.
    part = tf.where(value == red, green - blue, tf.where(value == green, blue - red, red - green))
    start = tf.where(value == red, 0, tf.where(value == green, 4, 8))
    hue = (start + (4 * part + chroma) // (2 * tf.maximum(chroma, 1))) % _BINS[0]
    saturation = tf.minimum(_BINS[1] * chroma // tf.maximum(value, 1), _BINS[1] - 1)
    brightness = tf.minimum(_BINS[2] * value // 255, _BINS[2] - 1)
    return (hue * _BINS[1] + saturation) * _BINS[2] + brightness
