"""The cluster: PostgreSQL, Redis, nginx and two of our processes, each of which a test may kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from domain import events
from domain.ids import new_id
from domain.settings import Settings
from domain.store import open_store
from tests.servers import Nginx, Postgres, Redis, free_port
from tests.ui.conftest import demo_environment
from tests.waiting import until_now

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "muster-demo"


class Node:
    """One process of ours, ``main.py run``, on a port of its own that stays."""

    def __init__(self, name: str, folder: Path, environ: dict[str, str]) -> None:
        self.name, self.port = name, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environ = environ | {"MUSTER_NODE": name, "MUSTER_PORT": str(self.port), "MUSTER_DEMO": "0"}
        self._log = (folder / f"{name}.log").open("a+")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start and wait until it is ready."""
        self._process = subprocess.Popen(
            [sys.executable, "main.py", "run"],
            cwd=ROOT,
            env=self._environ,
            stdout=self._log,
            stderr=self._log,
        )
        until_now(self.is_ready)
        return self

    def is_ready(self) -> bool:
        """Whether it may be sent work."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"node {self.name} ended:\n{self.log[-3000:]}")
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it logged."""
        self._log.seek(0)
        return self._log.read()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Until it has ended; its exit code."""
        assert self._process is not None
        return self._process.wait(timeout=30)

    def kill(self) -> None:
        """Without a word: kill -9."""
        self.send(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.is_running:
            self.send(signal.SIGTERM)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()

    def metric(self, name: str) -> float:
        """One of its metrics; the sum over its labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=5).text.splitlines()
        values = [
            float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))
        ]
        return sum(values)


class Cluster:
    """Everything, and the school in it."""

    def __init__(self, folder: Path) -> None:
        self.postgres, self.redis = Postgres(), Redis()
        self.postgres.start()
        self.redis.start()
        database_url = self.postgres.create_database()
        self.store = open_store(Settings(data=folder, database_url=database_url))  # to look for ourselves
        environ = demo_environment(folder) | {
            "MUSTER_DATABASE_URL": database_url,
            "MUSTER_REDIS_URL": self.redis.url,
            "MUSTER_LOG": "json",
        }
        seed = [sys.executable, "main.py", "seed", "--students", "60", "--weeks", "1"]
        subprocess.run(seed, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
        self.a, self.b = Node("a", folder, environ), Node("b", folder, environ)
        self.nginx = Nginx({"a": self.a.port, "b": self.b.port})
        for part in (self.a, self.b, self.nginx):
            part.start()
        self._tokens: dict[str, str] = {}

    @property
    def nodes(self) -> tuple[Node, Node]:
        """Both processes."""
        return self.a, self.b

    def heal(self) -> None:
        """Whatever a test has stopped runs again."""
        if not self.postgres.is_running:
            self.postgres.start()
        if not self.redis.is_running:
            self.redis.start()
        for node in self.nodes:
            if not node.is_running:
                node.start()
            until_now(node.is_ready)
        until_now(lambda: httpx.get(f"{self.nginx.url}/readyz", timeout=5).status_code == 200)

    def close(self) -> None:
        """End everything."""
        self.store.close()
        for part in (*self.nodes, self.nginx, self.redis, self.postgres):
            part.close()

    def token(self, who: str) -> str:
        """Somebody's token: teacher1, student7, admin."""
        if who not in self._tokens:
            body = {"email": f"{who}@demo.school", "password": PASSWORD}
            answer = httpx.post(f"{self.a.url}/api/v1/login", json=body, timeout=30)
            self._tokens[who] = str(answer.raise_for_status().json()["token"])
        return self._tokens[who]

    def forget_token(self, who: str) -> None:
        """Log somebody in anew the next time."""
        del self._tokens[who]

    def call(
        self, method: str, path: str, *, who: str = "teacher1", node: Node | None = None, **how: Any
    ) -> Any:
        """An API call as somebody; its JSON."""
        answer = httpx.request(
            method,
            f"{(node or self.a).url}/api/v1{path}",
            headers={"Authorization": f"Bearer {self.token(who)}"},
            timeout=60,
            **how,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def open_meeting(self) -> Meeting:
        """A fresh meeting of teacher1's and teacher2's class of 30, open now."""
        section = self.call("GET", "/sections")["sections"][0]
        meeting_id, now = new_id(), datetime.now(UTC).replace(microsecond=0)
        opening = {
            "id": new_id(),
            "kind": "open_meeting",
            "meeting_id": meeting_id,
            "section_id": section["id"],
            "scheduled_start": now.isoformat().replace("+00:00", "Z"),
            "scheduled_end": (now + timedelta(hours=1)).isoformat().replace("+00:00", "Z"),
        }
        [outcome] = self.call("POST", "/operations", json={"operations": [opening]})["outcomes"]
        assert outcome["outcome"] == "accepted", outcome
        roster = self.call("GET", f"/meetings/{meeting_id}")["roster"]
        return Meeting(self, meeting_id, [row["student_id"] for row in roster])


class Meeting:
    """One open meeting of the cluster."""

    def __init__(self, cluster: Cluster, meeting_id: str, students: list[str]) -> None:
        self.cluster, self.id, self.students = cluster, meeting_id, students
        self.topic = f"meeting:{meeting_id}"

    def marking(self, number: int) -> dict[str, Any]:
        """The n-th mark of an endless roll call."""
        statuses = ("present", "late", "absent", "excused")
        return {
            "id": new_id(),
            "kind": "mark",
            "meeting_id": self.id,
            "student_id": self.students[number % len(self.students)],
            "status": statuses[number // len(self.students) % 4],
        }

    def log(self) -> list[events.Event]:
        """All its events, from the database itself."""
        return self.cluster.store.read_now(lambda conn: events.read_after(conn, self.topic, 0, 1_000_000))


@pytest.fixture(scope="package")
def whole_cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o700)
        cluster = Cluster(Path(folder))
        yield cluster
        cluster.close()


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Cluster:
    """The cluster, in good health."""
    whole_cluster.heal()
    return whole_cluster
