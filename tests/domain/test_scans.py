"""The moment of a scan is kept under a MAC: it survives a log-in, and nobody can make, move or share it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from domain import scans
from domain.clock import to_millisecond
from domain.model import Via
from domain.proofs import link_proof, qr_token
from domain.scans import LOG_IN_LIFE, STAMP_LIFE, find_meeting, make_stamp, read_stamp
from domain.store import Store
from tests.factories import NOW, a_class

SECRET = b"s" * 32
PROOF = qr_token(SECRET, "0192f0c1-2a3b-7c4d-8e5f-112233445566", NOW)


def test_a_stamp_gives_back_the_moment_of_the_scan_and_one_id() -> None:
    stamp = make_stamp(SECRET, PROOF, NOW, holder_id="anna")

    first = read_stamp(SECRET, PROOF, stamp, holder_id="anna", now=NOW + timedelta(seconds=70))
    again = read_stamp(SECRET, PROOF, stamp, holder_id="anna", now=NOW + timedelta(seconds=80))

    assert first is not None
    assert first == again
    assert first[1] == to_millisecond(NOW)


def test_a_stamp_from_before_the_log_in_holds_after_it() -> None:
    stamp = make_stamp(SECRET, PROOF, NOW)

    assert read_stamp(SECRET, PROOF, stamp, holder_id="anna", now=NOW) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda stamp: "",
        lambda stamp: "nonsense",
        lambda stamp: stamp.partition(".")[0],
        lambda stamp: stamp[:-1] + ("A" if stamp[-1] != "A" else "B"),
        lambda stamp: ("1" if stamp[0] != "1" else "2") + stamp[1:],
        lambda stamp: stamp.upper(),
        lambda stamp: stamp + "é",
    ],
)
def test_a_changed_stamp_is_worth_nothing(change) -> None:  # type: ignore[no-untyped-def]
    stamp = make_stamp(SECRET, PROOF, NOW)

    assert read_stamp(SECRET, PROOF, change(stamp), holder_id="", now=NOW) is None


def test_a_stamp_belongs_to_its_token_its_meeting_and_its_holder() -> None:
    stamp = make_stamp(SECRET, PROOF, NOW, holder_id="anna")

    assert read_stamp(SECRET, PROOF + "x", stamp, holder_id="anna", now=NOW) is None
    assert read_stamp(b"t" * 32, PROOF, stamp, holder_id="anna", now=NOW) is None
    assert read_stamp(SECRET, PROOF, stamp, holder_id="ben", now=NOW) is None


@pytest.mark.parametrize(("holder", "life"), [("", LOG_IN_LIFE), ("anna", STAMP_LIFE)])
def test_a_stamp_ends_and_is_never_from_the_future(holder: str, life: timedelta) -> None:
    stamp = make_stamp(SECRET, PROOF, NOW, holder_id=holder)

    for wait, is_good in ((life, True), (life + timedelta(seconds=1), False), (timedelta(seconds=-1), False)):
        read = read_stamp(SECRET, PROOF, stamp, holder_id="anna", now=NOW + wait)
        assert (read is not None) is is_good, wait


def test_once_logged_in_the_same_scan_is_the_holders_alone() -> None:
    read = read_stamp(SECRET, PROOF, make_stamp(SECRET, PROOF, NOW), holder_id="anna", now=NOW)
    assert read is not None

    bound = make_stamp(SECRET, PROOF, read[1], holder_id="anna", identifier=read[0])

    assert read_stamp(SECRET, PROOF, bound, holder_id="anna", now=NOW + LOG_IN_LIFE * 2) == read
    assert read_stamp(SECRET, PROOF, bound, holder_id="ben", now=NOW) is None


def test_only_a_genuine_token_tells_of_its_meeting(store: Store) -> None:
    klass = a_class(store)
    old = klass.qr(NOW - timedelta(days=1))
    link = link_proof(klass.meeting_id, klass.link_token)
    forged = [
        f"{klass.meeting_id}.{10**20}.AAAA",
        f"{klass.meeting_id}.x.AAAA",
        f"{klass.meeting_id}.l.guess",
        old[:-1] + ("A" if old[-1] != "A" else "B"),
        klass.meeting_id,
        "%00",
        "..",
    ]

    found = store.read_now(lambda conn: [find_meeting(conn, proof) for proof in (old, link)])
    not_found = store.read_now(lambda conn: [find_meeting(conn, proof) for proof in forged])

    assert [meeting.id for meeting in found if meeting] == [klass.meeting_id] * 2
    assert (scans.via_of(old), scans.via_of(link)) == (Via.QR, Via.LINK)
    assert not_found == [None] * len(forged)
