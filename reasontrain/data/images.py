"""Images of prompts: read from data rows, decoded, and drawn for the testbed.

The only module that imports Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reasontrain.data.files import Row, RowError
from reasontrain.types import Image, UserError

if TYPE_CHECKING:
    import PIL.Image

    PilImage = PIL.Image.Image

SIDE = 56
"""Width and height of a drawn image in pixels.

That is two by two merged patches of Qwen2.5-VL, or four by four unmerged ones.
"""


def decode_image(image: Image, where: str) -> PilImage:
    """Decode an image to RGB.

    `where` names the problem in error messages. Raises UserError if the image cannot be read or
    Pillow is not installed.
    """
    try:
        import PIL.Image
    except ImportError:
        raise UserError("images need Pillow: `pip install reasontrain[vision]`") from None
    try:
        return PIL.Image.open(io.BytesIO(_encoded_bytes(image))).convert("RGB")
    except PIL.UnidentifiedImageError as error:
        raise UserError(
            f"the image of {where} is in no format that Pillow knows{_path_note(image)}"
        ) from error
    # Pillow reports a damaged PNG as SyntaxError.
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise UserError(
            f"the image of {where} cannot be read{_path_note(image)}: {error}"
        ) from error


def blank_image(size: tuple[int, int]) -> PilImage:
    """A white image of `size` = (width, height) in pixels."""
    import PIL.Image

    return PIL.Image.new("RGB", size, "white")


def find_image(row: Row, folder: Path, where: str) -> Image | None:
    """The image of a row, from column `image`, or `images` if that lists exactly one.

    The cell holds a path relative to `folder`, the encoded bytes, or a dict with `bytes` or `path`
    as Hugging Face data sets store images. `where` names the row in error messages. Raises
    RowError for several images and for a file that does not exist.
    """
    value = row.get("image")
    if value is None and isinstance(listed := row.get("images"), list):
        if len(listed) != 1:
            raise RowError(
                f"{where}: column 'images' has {len(listed)} images; expected one per prompt"
            )
        value = listed[0]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None:
        return None
    if isinstance(value, bytes):
        return Image(content=value)
    if not isinstance(value, str):
        raise RowError(
            f"{where}: the image is {type(value).__name__}; expected the path of a file, "
            f"or its bytes"
        )
    path = (folder / value).absolute()
    if not _is_file(path):
        raise RowError(
            f"{where}: there is no image {str(path)[:200]}; set `images` to the folder that paths "
            f"start from"
        )
    return Image(path=str(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the text is longer than a file name may be
        return False


def draw_shapes(shapes: Sequence[tuple[str, str]]) -> Image:
    """A PNG of coloured shapes side by side on white.

    `shapes` are (colour, shape) from left to right; a shape is "circle", "square" or "triangle".
    """
    import PIL.Image
    import PIL.ImageDraw

    canvas = PIL.Image.new("RGB", (SIDE, SIDE), "white")
    pen = PIL.ImageDraw.Draw(canvas)
    width = SIDE // len(shapes)
    for index, (colour, shape) in enumerate(shapes):
        size = width - 6
        left = index * width + 3
        top = (SIDE - size) // 2
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
    canvas.save(buffer, "PNG")
    return Image(content=buffer.getvalue())


def _encoded_bytes(image: Image) -> bytes:
    if image.content is not None:
        return image.content
    assert image.path is not None, "an image has a path or its bytes"
    return Path(image.path).read_bytes()


def _path_note(image: Image) -> str:
    return "" if image.path is None else f" ({image.path})"
