"""What one process does, the other shows."""

from __future__ import annotations

import asyncio

import httpx

from realtime.client import LoginEnded, MusterClient, log_in
from tests.scale.conftest import PASSWORD, Cluster
from tests.scale.people import Follower, Marker, all_agree
from tests.waiting import until


async def test_what_is_marked_on_one_process_is_seen_on_the_other(cluster: Cluster) -> None:
    meeting = cluster.open_meeting()
    async with (
        Follower(cluster, meeting, cluster.a.url) as here,
        Follower(cluster, meeting, cluster.b.url, "teacher2") as there,
    ):
        outcomes = await here.client.send([meeting.marking(n) for n in range(40)])
        await there.client.send([meeting.marking(n) for n in range(40, 80)])
        await until(lambda: here.seq == there.seq == 81)

    assert {o["outcome"] for o in outcomes} == {"accepted"}
    assert [e.data for e in here.events] == [e.data for e in there.events]
    assert here.missed() == there.missed() == []


async def test_both_write_at_once_and_the_log_has_no_gap(cluster: Cluster) -> None:
    meeting = cluster.open_meeting()
    async with (
        Follower(cluster, meeting, cluster.nginx.url) as anywhere,
        Marker(cluster, meeting, cluster.a.url) as one,
        Marker(cluster, meeting, cluster.b.url, "teacher2") as two,
    ):
        await one.goes_on(200)
        await two.goes_on(100)
        await one.finish()
        await all_agree(meeting, two, anywhere)
        await all_agree(meeting, one, anywhere)


async def test_a_log_out_on_one_process_ends_sockets_on_the_other(cluster: Cluster) -> None:
    token = await log_in(cluster.a.url, "teacher3@demo.school", PASSWORD)
    async with MusterClient(cluster.b.url, token) as client:
        await client.until_live()
        await asyncio.to_thread(_log_out, cluster, token)
        await until(lambda: client.state == "ended")
        try:
            await client.send([{"kind": "mark"}])
        except LoginEnded:
            return
    raise AssertionError("the socket on the other process was not ended")


def _log_out(cluster: Cluster, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.post(f"{cluster.a.url}/api/v1/logout", headers=headers).status_code == 204


async def test_who_is_there_is_known_on_both(cluster: Cluster) -> None:
    meeting = cluster.open_meeting()
    async with (
        MusterClient(cluster.a.url, cluster.token("teacher1")) as here,
        here.subscribe(meeting.topic) as topic,
    ):
        async with (
            MusterClient(cluster.b.url, cluster.token("teacher2")) as there,
            there.subscribe(meeting.topic) as other,
        ):
            await until(lambda: len(topic.presence) == len(other.presence) == 2)
        await until(lambda: len(topic.presence) == 1)


async def test_one_process_leads_and_when_it_is_killed_the_other_does(cluster: Cluster) -> None:
    leading = [node for node in cluster.nodes if node.metric("muster_is_leader") == 1]
    assert len(leading) == 1
    other = cluster.b if leading[0] is cluster.a else cluster.a

    leading[0].kill()

    await until(lambda: other.metric("muster_is_leader") == 1)
