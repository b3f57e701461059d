"""Dead letters: how many, why, and what each of them holds."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.asking import Trouble
from consumers.console.choices import text_of, whole, window_of
from consumers.console.decoded import Decoded, decoded
from consumers.console.serving import console_of, page, panel

_BY_REASON = """
SELECT reason, topic, sum(letters) AS letters, max(robots) AS robots, max(hour) AS newest, any(example) AS example
FROM dead_letters_by_hour WHERE hour >= {since:DateTime64(0, 'UTC')}
GROUP BY reason, topic ORDER BY letters DESC, reason, topic LIMIT 100
"""
_LIST = """
SELECT topic, partition, offset, robot_id, reason, error, length(value) AS bytes, appended_at
FROM dead_letters WHERE appended_at >= {{begin:DateTime64(0, 'UTC')}} {where}
ORDER BY appended_at DESC, topic, partition, offset DESC LIMIT 100
"""
_ONE = """
SELECT topic, partition, offset, robot_id, reason, error, hex(value) AS value, appended_at
FROM dead_letters WHERE topic = {topic:String} AND partition = {partition:Int32} AND offset = {offset:Int64}
"""


def dead_letters(request: Request) -> Response:
    """The page."""
    given = request.query_params
    return page(
        request,
        "dead_letters.html",
        title="Dead letters",
        window=window_of(given, "7d"),
        reason=text_of(given, "reason"),
        robot=text_of(given, "robot"),
    )


@panel("panels/dead_reasons.html")
def by_reason(request: Request) -> dict[str, Any]:
    """How many of each reason, in the window."""
    console, window = console_of(request), window_of(request.query_params, "7d")
    bound = {"since": window.since(console.clock.now())}
    return {"rows": console.warehouse.ask(_BY_REASON, bound, remembered=5), "window": window}


@panel("panels/dead_list.html")
def listed(request: Request) -> dict[str, Any]:
    """The newest of them."""
    console, given = console_of(request), request.query_params
    window = window_of(given, "7d")
    bound = window.bound(console.clock.now())
    where = ""
    if reason := text_of(given, "reason"):
        where += " AND reason = {reason:String}"
        bound["reason"] = reason
    if robot := text_of(given, "robot"):
        where += " AND robot_id = {robot:String}"
        bound["robot"] = robot
    rows = console.warehouse.ask(_LIST.format(where=where), bound, remembered=5)
    return {"rows": rows, "window": window, "filtered": bool(where)}


def dead_letter(request: Request) -> Response:
    """One of them: why, and the record itself."""
    console, place = console_of(request), request.path_params
    bound = {
        "topic": place["topic"],
        "partition": whole(place["partition"], 32),
        "offset": whole(place["offset"], 64),
    }
    rows = console.warehouse.ask(_ONE, bound, remembered=0)
    if not rows:
        raise Trouble("There is no such dead letter.", "They are kept for 90 days; the list has the newest.", 404)
    letter = rows[0]
    value = bytes.fromhex(letter["value"])
    found: Decoded = decoded(value, console.registry)
    return page(
        request,
        "dead_letter.html",
        title="Dead letter",
        letter=letter,
        decoded=found,
        dump=hex_dump(value),
        bytes=len(value),
    )


def hex_dump(value: bytes, most: int = 1024) -> str:
    """The first bytes as offsets, hex and what can be printed, as `hexdump -C` writes them."""
    lines = []
    for begin in range(0, min(len(value), most), 16):
        row = value[begin : begin + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{begin:06x}  {row.hex(' '):<47}  {shown}")
    return "\n".join(lines)
