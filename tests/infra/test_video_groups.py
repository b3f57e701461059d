from __future__ import annotations

import io
import itertools

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.video import GROUP, SegmentUnreadable, SegmentWriter, decode_segment
from infra.video_groups import GroupDecoder, cut_segment
from schemas.frames import FFV1, H264
from tests.infra.scenes import scene

SIZE = 32
IMAGES = scene(2 * GROUP + 3, SIZE)


def segment(count: int, codec: str = H264) -> bytes:
    writer = SegmentWriter(codec, SIZE, SIZE)
    for image in IMAGES[:count]:
        writer.add(image if codec == H264 else image[..., 0].astype(np.uint16))
    return writer.finish()


def reordered() -> bytes:
    """As another encoder might write it: with frames that are shown before those that come first."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "3", "b-adapt": "0"})
        stream.height, stream.width, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for image in IMAGES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, len(IMAGES)),
    asked=st.lists(st.tuples(st.integers(0, 2), st.integers(1, GROUP)), max_size=8),
)
def test_any_part_of_any_group_in_any_order_has_the_images_of_the_whole_segment(
    count: int, asked: list[tuple[int, int]]
) -> None:
    data = segment(count)
    whole, cut, decoder = decode_segment(data, H264), cut_segment(data, H264), GroupDecoder()
    assert (cut.height, cut.width, cut.count) == (SIZE, SIZE, count)
    assert cut.firsts.tolist() == list(range(0, count, GROUP))
    for number, first in [(n % len(cut.groups), first) for n, first in asked]:
        images = list(decoder.images(cut.groups[number], first))
        begin = int(cut.firsts[number])
        wanted = whole[begin : min(begin + GROUP, count)][:first]
        np.testing.assert_array_equal(images, wanted)


def test_a_decoder_that_was_left_in_the_middle_or_met_damage_reads_the_next_group_right() -> None:
    data = segment(len(IMAGES))
    whole, cut, decoder = decode_segment(data, H264), cut_segment(data, H264), GroupDecoder()
    for _ in itertools.islice(decoder.images(cut.groups[0]), 2):
        pass
    np.testing.assert_array_equal(list(decoder.images(cut.groups[1])), whole[GROUP : 2 * GROUP])
    damaged = bytearray(cut.groups[0])
    middle = len(damaged) // 2
    damaged[middle : middle + 600] = bytes(600)
    good = list(decoder.images(bytes(damaged)))
    assert len(good) < GROUP
    np.testing.assert_array_equal(good, whole[: len(good)])
    np.testing.assert_array_equal(list(decoder.images(cut.groups[1])), whole[GROUP : 2 * GROUP])


@pytest.mark.parametrize("data", [b"", b"no video", segment(5)[:200]], ids=["nothing", "no video", "torn"])
def test_what_is_no_segment_is_refused(data: bytes) -> None:
    with pytest.raises(SegmentUnreadable):
        cut_segment(data, H264)


def test_depth_and_frames_out_of_order_are_refused() -> None:
    with pytest.raises(SegmentUnreadable, match="ffv1"):
        cut_segment(segment(3, FFV1), FFV1)
    with pytest.raises(SegmentUnreadable, match="order"):
        cut_segment(reordered(), H264)
