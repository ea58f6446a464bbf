"""Pictures: opened from their bytes, and drawn for the testbed. Pillow is needed for nothing else."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reasontrain.data.files import Row
from reasontrain.types import Picture, UserError

if TYPE_CHECKING:
    from PIL.Image import Image as Image

SIDE = 56
"""Pixels of a drawn picture: two by two merged patches of Qwen2.5-VL, four by four patches."""


def opened(picture: Picture, where: str) -> Image:
    """A picture in RGB; UserError where it cannot be read, or Pillow is not there."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise UserError("pictures need Pillow: `pip install reasontrain[vision]`") from None
    try:
        return Image.open(io.BytesIO(picture.content or Path(picture.path).read_bytes())).convert(
            "RGB"
        )
    except UnidentifiedImageError as error:
        raise UserError(
            f"the image of {where} is no picture that Pillow knows{_at(picture)}"
        ) from error
    except (
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # Pillow's word for a damaged PNG is SyntaxError
        raise UserError(f"the image of {where} cannot be read{_at(picture)}: {error}") from error


def blank(size: tuple[int, int]) -> Image:
    """A white picture of so many pixels, across and down."""
    from PIL import Image

    return Image.new("RGB", size, "white")


def picture_in(row: Row, folder: Path, where: str) -> Picture | None:
    """The picture of a row: `image`, or `images` with one, as a path from `folder`, as bytes or as
    data sets keep both.

    Raises UserError for several, and for a file that is not there.
    """
    value = row.get("image")
    if value is None and isinstance(several := row.get("images"), list):
        if len(several) != 1:
            raise UserError(
                f"{where}: column 'images' has {len(several)} pictures; a prompt shows one"
            )
        value = several[0]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None:
        return None
    if isinstance(value, bytes):
        return Picture(content=value)
    if not isinstance(value, str):
        raise UserError(
            f"{where}: the image is {type(value).__name__}; expected the path of a file, "
            f"or its bytes"
        )
    path = (folder / value).absolute()
    if not path.is_file():
        raise UserError(
            f"{where}: there is no image {path}; say with `images` from which folder paths "
            f"are meant"
        )
    return Picture(path=str(path))


def _at(picture: Picture) -> str:
    return f" ({picture.path})" if picture.path else ""


def drawn(shapes: Sequence[tuple[str, str]]) -> Picture:
    """A PNG of coloured shapes side by side on white, (colour, shape) from left to right; shapes
    are circle, square, triangle.
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (SIDE, SIDE), "white")
    pen, width = ImageDraw.Draw(picture), SIDE // len(shapes)
    for index, (colour, shape) in enumerate(shapes):
        size = width - 6
        left, top = index * width + 3, (SIDE - size) // 2
        box = (left, top, left + size, top + size)
        match shape:
            case "circle":
                pen.ellipse(box, fill=colour)
            case "square":
                pen.rectangle(box, fill=colour)
            case _:
                pen.polygon(
                    [(left, top + size), (left + size, top + size), (left + size // 2, top)],
                    fill=colour,
                )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Picture(content=buffer.getvalue())
