"""The rasteriser: exact areas, motion below a pixel, and back from pixels to a position."""

import numpy as np
import pytest

from safetypilot.envs import geometry, raster
from safetypilot.envs.raster import Scene, View, plan_scene

VIEW = View(left=0.0, top=8.0, pixel=1.0, height=8, width=12)


def scene(walls=(), outside=None, goal=(10.0, 6.0, 1.0), radius=1.5):
    return Scene(VIEW, walls, outside, goal, radius)


def test_north_is_up_and_west_is_left():
    image = scene(walls=((0.0, 2.0, 7.0, 8.0),)).draw(6.0, 1.0)
    assert image.shape == (8, 12, 3)
    assert image.dtype == np.uint8
    assert (image[0, :2] == raster.WALL).all()
    assert (image[7, 5:7] == raster.AGENT).all()
    assert (image[0, 2:] == raster.FLOOR).all()


def test_a_wall_colours_each_pixel_by_the_area_it_covers():
    image = scene(walls=((3.25, 5.0, 4.5, 6.0),)).draw(9.0, 2.0).astype(float)
    share = (image[..., 0] - raster.FLOOR[0]) / (raster.WALL[0] - raster.FLOOR[0])
    np.testing.assert_allclose(share[2, 3:5], [0.75, 1.0], atol=0.005)
    np.testing.assert_allclose(share[3, 3:5], [0.375, 0.5], atol=0.005)


def test_what_lies_outside_is_wall():
    image = scene(outside=(1.0, 11.0, 1.0, 7.0)).draw(6.0, 4.0)
    assert (image[0] == raster.WALL).all()
    assert (image[:, -1] == raster.WALL).all()
    assert (image[1, 1] == raster.FLOOR).all()


def test_a_hundredth_of_a_pixel_shows():
    ours = scene()
    assert not np.array_equal(ours.draw(6.0, 4.0), ours.draw(6.01, 4.0))


def test_drawing_leaves_no_trace():
    ours = scene()
    first = ours.draw(6.0, 4.0)
    ours.draw(3.0, 4.0)
    np.testing.assert_array_equal(ours.draw(6.0, 4.0), first)


@pytest.mark.parametrize("position", [(-1.0, 4.0), (12.5, 4.0), (6.0, -0.5), (6.0, 9.0), (-9, -9)])
def test_an_agent_at_the_edge_or_beyond_is_cut(position):
    assert scene().draw(*position).shape == (8, 12, 3)


def test_an_agent_far_outside_is_not_seen():
    ours = scene()
    with pytest.raises(ValueError, match="no agent"):
        ours.locate(ours.draw(-9.0, 30.0))


def test_the_position_can_be_read_back():
    ours = scene(walls=((3.0, 4.0, 0.0, 8.0),))
    for position in np.random.default_rng(0).uniform((2.5, 2.5), (9.5, 5.5), (50, 2)):
        image = ours.draw(*position)
        np.testing.assert_allclose(ours.locate(image), position, atol=0.08)
        np.testing.assert_allclose(
            ours.locate(image.ravel().astype(np.float32)), position, atol=0.08
        )


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(8, 12, 3\) or flat is needed"):
        scene().locate(np.zeros((8, 8, 3)))


@pytest.mark.parametrize("name", ["MAZE", "IMAGE_MAZE", "NAVIGATION1", "NAVIGATION2", "REACH"])
def test_plan_views_have_square_pixels(name):
    plan = getattr(geometry, name)
    x0, x1, y0, y1 = plan.bounds
    image = plan_scene(plan).draw(*plan.goal)
    assert image.shape[0] / image.shape[1] == pytest.approx((y1 - y0) / (x1 - x0), abs=0.005)
