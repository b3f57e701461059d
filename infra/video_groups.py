"""A segment cut at its key frames: one of its frames costs the decoding of a group, and no container is opened.

A group as bytes (little-endian): uint32 bytes of the decoder's configuration, uint32 number n of frames, n uint32
lengths; then the configuration and the n packets. Images are those of `infra.video.decode_segment`, bit for bit.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.codec import CodecContext
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter

from infra.video import SegmentUnreadable
from schemas.frames import H264

_HEAD = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Cut:
    """A segment's groups. `firsts` int64[groups]: number of each one's first frame; `count` of frames in all."""

    height: int
    width: int
    groups: tuple[bytes, ...]
    firsts: npt.NDArray[np.int64]
    count: int


def cut_segment(data: bytes, codec: str) -> Cut:
    """A segment of colour images, cut; nothing is decoded.

    Raises:
        SegmentUnreadable: it is none, or its frames are not in the order in which they are shown.
    """
    if codec != H264:
        raise SegmentUnreadable(f"a segment of {codec}, where {H264} is wanted")
    try:
        with av.open(io.BytesIO(data), "r") as container:
            stream = container.streams.video[0] if container.streams.video else None
            if stream is None or stream.codec_context.name != codec:
                raise SegmentUnreadable(f"holds no {codec}")
            height, width = stream.codec_context.height, stream.codec_context.width
            configuration = stream.codec_context.extradata or b""
            found = [(bytes(p), p.is_keyframe, p.pts) for p in container.demux(stream) if p.size]
    except (FFmpegError, ValueError, EOFError) as error:
        raise SegmentUnreadable(f"no segment of {codec}: {error}") from error
    times = [time for _, _, time in found]
    if not found or not found[0][1] or None in times or any(b <= a for a, b in itertools.pairwise(times)):  # type: ignore[operator]
        raise SegmentUnreadable("its frames do not begin with a key frame, or are not in their order")
    firsts = [number for number, (_, key, _) in enumerate(found) if key]
    packets = [packet for packet, _, _ in found]
    groups = tuple(
        _pack(configuration, packets[first:last]) for first, last in itertools.pairwise([*firsts, len(packets)])
    )
    return Cut(height, width, groups, np.array(firsts, np.int64), len(packets))


class GroupDecoder:
    """Decodes groups, one after the other; for one thread."""

    def __init__(self) -> None:
        self._configuration: bytes | None = None
        self._context: VideoCodecContext | None = None
        self._reformatter = VideoReformatter()

    def images(self, group: bytes, count: int | None = None) -> Iterator[npt.NDArray[np.uint8]]:
        """A group's first `count` images, by default all, uint8[H, W, 3]; they end before one that is damaged."""
        configuration, packets = _unpack(group)
        context = self._prepared(configuration)
        wanted = packets if count is None else packets[:count]
        self._context = None  # it may keep something of what it cannot read, or nobody asks for
        try:
            for number, frame in enumerate(self._frames(context, wanted)):
                if frame.is_corrupt or frame.pts != number:
                    return
                image: Any = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
                yield image
        except (FFmpegError, ValueError):
            return
        context.flush_buffers()
        self._context = context

    def _prepared(self, configuration: bytes) -> VideoCodecContext:
        if self._context is None or self._configuration != configuration:
            self._context = CodecContext.create("h264", "r")
            self._context.extradata = configuration
            self._context.thread_count = 1  # one thread decodes alike everywhere, and others decode beside it
            self._configuration = configuration
        return self._context

    def _frames(self, context: VideoCodecContext, packets: list[bytes]) -> Iterator[Any]:
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            yield from context.decode(packet)
        yield from context.decode(None)


def _pack(configuration: bytes, packets: list[bytes]) -> bytes:
    lengths = struct.pack(f"<{len(packets)}I", *map(len, packets))
    return b"".join((_HEAD.pack(len(configuration), len(packets)), lengths, configuration, *packets))


def _unpack(group: bytes) -> tuple[bytes, list[bytes]]:
    size, count = _HEAD.unpack_from(group)
    lengths = struct.unpack_from(f"<{count}I", group, _HEAD.size)
    begin = _HEAD.size + 4 * count
    cuts = list(itertools.accumulate(lengths, initial=begin + size))
    return group[begin : begin + size], [group[a:b] for a, b in itertools.pairwise(cuts)]
