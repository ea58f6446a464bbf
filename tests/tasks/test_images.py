"""Generated images: what the caption says is drawn, and nothing that is trained on is held out."""

from __future__ import annotations

from reasontrain.data.images import SIDE, decode_image
from reasontrain.tasks.images import ALL, COLOURS, ImageTask

RGB = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
}
RGB |= {"orange": (255, 165, 0), "purple": (128, 0, 128)}


def test_a_caption_names_what_is_drawn_from_left_to_right() -> None:
    for problem in ImageTask(num_problems=30).problems():
        image = decode_image(problem.image, problem.id)
        assert image.size == (SIDE, SIDE)
        said = [word for word in problem.solution.split() if word in COLOURS]
        centres = [image.getpixel((x, SIDE // 2)) for x in (SIDE // 4, 3 * SIDE // 4)]
        assert centres == [RGB[colour] for colour in said], problem.solution
        assert problem.prompt == "What does the picture show?"


def test_shapes_differ_at_their_corners() -> None:
    of = {p.solution: decode_image(p.image, p.id) for p in ImageTask(num_problems=600).problems()}
    corner = {"square": True, "circle": False, "triangle": False}
    for caption, image in of.items():
        colour, shape = caption.split()[4:6]
        assert (image.getpixel((3, 17)) == RGB[colour]) == corner[shape], (
            caption
        )  # left end of the shape's first line
        assert (image.getpixel((3, 17 + 22)) == RGB[colour]) == (shape != "circle"), (
            caption
        )  # and of its last


def test_held_out_images_are_never_trained_on_and_a_seed_draws_anew() -> None:
    train, other, test = (
        ImageTask(num_problems=500, **given).problems()
        for given in ({}, {"seed": 1}, {"split": "test"})
    )
    assert len({p.id for p in train}) == 500
    assert not {p.solution for p in train} & {p.solution for p in test}
    assert len({p.solution for p in [*train, *test]}) > 0.9 * len(ALL)
    assert [p.solution for p in train] != [p.solution for p in other]
    assert [p.image for p in ImageTask(num_problems=500).problems()] == [p.image for p in train]
