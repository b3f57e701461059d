"""`sop policies lineage`: what a policy version was made from. The group itself is put together in `sop.py`."""

from __future__ import annotations

from typing import Annotated

import typer

from consumers.analytics.output import FormatOption

_SUMMARY = """
SELECT task, source, count() AS episodes, sum(draws) AS samples, round(sum(share), 4) AS of_all,
    round(avg(success), 3) AS success_rate
FROM {view}(policy = {{policy:String}}, version = {{version:Int64}})
GROUP BY task, source ORDER BY task, source
"""
_EPISODES = """
SELECT episode_id, {which}, draws, round(share, 6) AS of_all, task, robot_id, source, success
FROM {view}(policy = {{policy:String}}, version = {{version:Int64}})
ORDER BY draws DESC, episode_id
"""
_SINCE_PARENT = {"view": "lineage_of_version", "which": "revision"}
_ALL = {"view": "lineage_to_version", "which": "versions, first_version, last_version"}
_KNOWN = "SELECT count() FROM training_reports WHERE policy = {policy:String} AND version = {version:Int64}"


def lineage(
    version: Annotated[int, typer.Argument(min=1, help="The version.")],
    policy: Annotated[str | None, typer.Option(help="The policy line; by default the settings'.")] = None,
    episodes: Annotated[bool, typer.Option("--episodes", help="List every episode.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Of all versions that it descends from, not of this one alone.")
    ] = False,
    form: FormatOption = None,
) -> None:
    """Show which episodes made a policy version, and how often they were drawn since the version before."""
    from consumers.analytics.asking import analyst  # noqa: PLC0415 - each command loads what it needs, no more
    from consumers.analytics.output import show  # noqa: PLC0415
    from infra.command import settings_or_fail  # noqa: PLC0415
    from infra.terminal import fail  # noqa: PLC0415

    found = settings_or_fail()
    bound = {"policy": policy or found.learner.policy, "version": version}
    with analyst(found) as client:
        if not client.query(_KNOWN, parameters=bound).result_rows[0][0]:
            lines = client.query("SELECT DISTINCT policy FROM training_reports ORDER BY policy").result_rows
            known = ", ".join(repr(line) for (line,) in lines) or "none"
            fail(f"nothing is known of what made version {version} of {bound['policy']!r}; known lines: {known}")
        sql = (_EPISODES if episodes else _SUMMARY).format_map(_ALL if everything else _SINCE_PARENT)
        show(client, sql, bound, form)
