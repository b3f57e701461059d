"""Segments: what is lost in colour, what is never lost in depth, and bytes that are no segment."""

from __future__ import annotations

import numpy as np
import pytest

from infra.video import Image, SegmentUnreadable, SegmentWriter, decode_segment
from schemas.frames import FFV1, H264
from tests.infra.scenes import depth, psnr, scene

STATED_PSNR = 30.0


def encoded(codec: str, images: Image) -> bytes:
    writer = SegmentWriter(codec, *images.shape[1:3])
    for image in images:
        writer.add(image)
    return writer.finish()


@pytest.mark.parametrize("noise", [0.0, 2.0, 5.0])
def test_each_frame_of_what_a_camera_sees_comes_back_within_the_stated_psnr_at_a_fraction_of_its_size(
    noise: float,
) -> None:
    seen = scene(25, noise=noise)
    data = encoded(H264, seen)
    kept = decode_segment(data, H264)
    assert kept.dtype == np.uint8
    assert kept.shape == seen.shape
    assert psnr(seen, kept.astype(np.uint8)).min() >= STATED_PSNR
    # Each frame is nearest to itself: none is shifted.
    apart = [[float(np.abs(one.astype(int) - other).mean()) for other in seen[:8]] for one in kept[:8]]
    assert np.argmin(apart, axis=1).tolist() == list(range(8))
    assert len(data) < seen.nbytes / 20


def test_every_value_of_a_depth_image_comes_back() -> None:
    seen = depth(7)
    kept = decode_segment(encoded(FFV1, seen), FFV1)
    assert kept.dtype == np.uint16
    np.testing.assert_array_equal(kept, seen)


@pytest.mark.parametrize("codec", [H264, FFV1])
def test_a_segment_of_one_frame_is_one_frame(codec: str) -> None:
    images: Image = scene(1) if codec == H264 else depth(1)
    assert decode_segment(encoded(codec, images), codec).shape == images.shape


def test_an_image_of_another_size_is_refused_and_the_others_stay() -> None:
    writer = SegmentWriter(H264, 224, 224)
    writer.add(scene(1)[0])
    with pytest.raises(ValueError, match="100x224 among others"):
        writer.add(np.zeros((100, 224, 3), np.uint8))
    assert len(decode_segment(writer.finish(), H264)) == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"no video", encoded(FFV1, depth(2))[:100], encoded(FFV1, depth(2))],
    ids=["nothing", "no video", "torn", "another codec"],  # no two encodings are the same bytes
)
def test_bytes_that_are_no_segment_of_the_codec_are_called_so(data: bytes) -> None:
    with pytest.raises(SegmentUnreadable):
        decode_segment(data, H264)
