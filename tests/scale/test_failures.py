"""What may happen to a cluster under load: nothing acknowledged is lost, everybody is told everything once."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from tests.scale.conftest import ROOT, Cluster
from tests.scale.people import Follower, Lines, Marker, all_agree
from tests.waiting import until

#: How long Redis stays away.
OUTAGE_S = 60.0


def note(what: str, seconds: float) -> None:
    """Keep a figure for whoever wants to know; tests do not judge time."""
    path: Path = ROOT / "build" / "failures.txt"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"{what}: {seconds:.2f} s\n")


async def test_redis_is_killed_for_a_minute_and_commits_go_on(cluster: Cluster) -> None:
    meeting = cluster.open_meeting()
    async with (
        Follower(cluster, meeting, cluster.a.url) as here,
        Follower(cluster, meeting, cluster.b.url, "teacher2") as there,
        Marker(cluster, meeting, cluster.a.url) as marker,
    ):
        cluster.redis.kill9()
        began = time.monotonic()
        while time.monotonic() - began < OUTAGE_S:
            await marker.goes_on(50)
            await there.reaches(there.seq + 1)  # the log is read without Redis
        cluster.redis.start(keep_data=False)
        back = time.monotonic()
        await until(lambda: all(node.metric("muster_redis_up") == 1 for node in cluster.nodes))
        note("Redis back after a minute: news go through it again", time.monotonic() - back)
        await marker.goes_on()
        await all_agree(meeting, marker, here, there)


async def test_a_process_is_killed_and_its_clients_resume_on_the_other(cluster: Cluster) -> None:
    meeting = cluster.open_meeting()
    async with (
        Follower(cluster, meeting, cluster.nginx.url) as one,
        Follower(cluster, meeting, cluster.nginx.url, "teacher2") as two,
        Marker(cluster, meeting, cluster.nginx.url) as marker,
    ):
        victim = max(cluster.nodes, key=lambda node: node.metric("muster_connections"))
        lines = Lines(one.client, two.client, marker.client)
        victim.kill()
        killed = time.monotonic()
        await lines.are_back()
        note("kill -9: all clients live on the other process", time.monotonic() - killed)
        await marker.goes_on()
        await asyncio.to_thread(cluster.heal)
        await all_agree(meeting, marker, one, two)


async def test_postgres_restarts_and_nothing_acknowledged_is_lost(cluster: Cluster) -> None:
    meeting = cluster.open_meeting()
    async with (
        Follower(cluster, meeting, cluster.b.url, "teacher2") as there,
        Marker(cluster, meeting, cluster.a.url) as marker,
    ):
        await asyncio.to_thread(cluster.postgres.stop)
        await until(lambda: not any(node.is_ready() for node in cluster.nodes))
        await asyncio.to_thread(cluster.postgres.start)
        back = time.monotonic()
        await marker.goes_on()
        note("PostgreSQL restarted: operations are acknowledged again", time.monotonic() - back)
        await until(lambda: all(node.is_ready() for node in cluster.nodes))
        await all_agree(meeting, marker, there)

    assert marker.refused <= {"busy"}


async def test_sigterm_under_load_loses_nothing_and_clients_come_back(cluster: Cluster) -> None:
    meeting = cluster.open_meeting()
    async with (
        Follower(cluster, meeting, cluster.nginx.url) as one,
        Follower(cluster, meeting, cluster.nginx.url, "teacher2") as two,
        Marker(cluster, meeting, cluster.nginx.url) as marker,
    ):
        node = max(cluster.nodes, key=lambda node: node.metric("muster_connections"))
        lines = Lines(one.client, two.client, marker.client)
        node.send(signal.SIGTERM)
        told = time.monotonic()
        await lines.are_back()
        note("SIGTERM: all clients live on the other process", time.monotonic() - told)
        code = await asyncio.to_thread(node.wait)
        await marker.goes_on()
        await asyncio.to_thread(cluster.heal)
        await all_agree(meeting, marker, one, two)

    assert code == 0
