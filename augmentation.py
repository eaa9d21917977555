"""From squares to what the net sees: crops, flips and centred colours, a whole batch at once on its device.

Colour and texture *are* style, so they are left alone; where a thing stands, how large, and which way it looks is not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def draw_crops(count: int, smallest_area: float, seed: int) -> Tensor:
    """Draw the crops of an epoch, on the CPU and so the same for every device: float32 [count, 2, 3].

    Each is a square of between `smallest_area` (in (0, 1]) and all of the picture's area, anywhere in it, and half of
    them are mirrored; written as the matrix that takes the crop's coordinates to the picture's, both from -1 to 1.
    """
    chances = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))
    side = (smallest_area + (1 - smallest_area) * chances[:, 0]).sqrt()
    crops = torch.zeros(count, 2, 3)
    crops[:, 0, 0] = torch.where(chances[:, 1] < 0.5, side, -side)
    crops[:, 1, 1] = side
    crops[:, :, 2] = (2 * chances[:, 2:] - 1) * (1 - side)[:, None]
    return crops


def prepare(squares: Tensor, image_size: int, mean: Tensor, deviation: Tensor, crops: Tensor | None = None) -> Tensor:
    """Crop squares and centre their colours.

    `squares` is uint8 [n, side, side, 3]; `mean` and `deviation`, float32 [3], are of colours in [0, 1]; `crops`,
    float32 [n, 2, 3], comes from `draw_crops` in training; without them the middle is taken, at its own size.
    Returns float32 [n, 3, image_size, image_size] in the channels-last layout that convolutions are fastest on.
    """
    if crops is None:
        start = (squares.shape[1] - image_size) // 2
        squares = squares[:, start : start + image_size, start : start + image_size]
    # One multiplication and one addition for each value: (value / 255 - mean) / deviation.
    pictures = torch.addcmul(-mean / deviation, squares, 1 / (255 * deviation)).permute(0, 3, 1, 2)
    if crops is None:
        return pictures
    grid = functional.affine_grid(crops, [len(squares), 3, image_size, image_size], align_corners=False)
    cropped = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return cropped.contiguous(memory_format=torch.channels_last)
