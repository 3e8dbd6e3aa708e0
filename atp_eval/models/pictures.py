"""What a CLIP tower sees of a picture: padded to a square, or cropped to one."""

from __future__ import annotations

from typing import Literal

from PIL import Image

ImageMode = Literal["pad", "crop"]


def squared(image: Image.Image, mode: ImageMode, mean: tuple[float, ...]) -> Image.Image:
    """RGB. `pad`: LLaVA-1.5's own protocol, a square with the picture in the middle of the mean colour.

    `crop`: the picture itself, since the checkpoint's processor resizes its shorter side and cuts out the middle.
    mean: of the red, green and blue channels, in 0..1.
    """
    image = image.convert("RGB")
    if mode == "crop" or image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * channel) for channel in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def seen(image: Image.Image, mode: ImageMode, mean: tuple[float, ...], side: int) -> Image.Image:
    """[side x side] RGB: the pixels under the visual grid, for drawing on."""
    image = squared(image, mode, mean)
    scale = side / min(image.size)
    width, height = max(side, round(image.width * scale)), max(side, round(image.height * scale))
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
