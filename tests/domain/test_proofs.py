"""What a proof is worth, and when it proves that the student was there (protocol §3)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import proofs
from domain.model import Via
from domain.proofs import Judgement, Verdict
from tests.factories import NOW

SECRET = bytes(range(32))
MEETING = "01939f2e-7c00-7000-8000-000000000001"
OTHER = "01939f2e-7c00-7000-8000-000000000002"


def after(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


def judged(
    proof: str | None,
    *,
    captured: float = 0,
    received: float | None = None,
    via: Via = Via.QR,
    known: bool = True,
    link: str | None = "let-me-in",
) -> Judgement:
    return proofs.judge(
        via=via,
        proof=proof,
        meeting_id=MEETING,
        secret=SECRET,
        link_token=link,
        captured_at=after(captured),
        received_at=after(captured if received is None else received),
        is_clock_known=known,
    )


TOKEN = proofs.qr_token(SECRET, MEETING, NOW)  # NOW is the first instant of its step


@pytest.mark.parametrize("seconds", [-15, -0.001, 0, 14.999, 29.999])
def test_a_token_holds_within_its_own_step_and_one_beside_it(seconds: float) -> None:
    assert judged(TOKEN, captured=seconds).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("seconds", [30, 40, 3600])
def test_a_photographed_token_expires(seconds: float) -> None:
    assert judged(TOKEN, captured=seconds).verdict is Verdict.EXPIRED


def test_a_token_of_a_later_slot_is_not_believed() -> None:
    future = proofs.qr_token(SECRET, MEETING, after(3600))

    assert judged(future, captured=0).verdict is Verdict.BAD


def test_a_token_of_another_meeting_or_secret_is_bad() -> None:
    assert judged(proofs.qr_token(SECRET, OTHER, NOW)).verdict is Verdict.BAD
    assert judged(proofs.qr_token(bytes(32), MEETING, NOW)).verdict is Verdict.BAD


def test_the_slot_bounds_the_arrival() -> None:
    assert judged(TOKEN, captured=7).effective_at == after(7)
    assert judged(TOKEN, captured=-10).effective_at == NOW


def test_a_capture_made_in_time_holds_however_late_it_arrives_when_the_clock_is_known() -> None:
    assert judged(TOKEN, captured=5, received=7200) == Judgement(Verdict.VERIFIED, after(5))


def test_an_old_capture_by_a_clock_that_nothing_vouches_for_is_kept_unverified() -> None:
    assert judged(TOKEN, captured=5, received=7200, known=False).verdict is Verdict.UNVERIFIED


def test_a_fast_clock_is_flagged_and_the_arrival_decides() -> None:
    judgement = judged(TOKEN, captured=3 * 3600, received=5)

    assert judgement == Judgement(Verdict.VERIFIED, after(5), is_skewed=True)


def test_a_slow_clock_is_flagged_and_the_arrival_decides() -> None:
    judgement = judged(TOKEN, captured=-3 * 3600, received=5)

    assert judgement == Judgement(Verdict.VERIFIED, after(5), is_skewed=True)


def test_a_code_holds_for_its_minute_and_the_ones_beside_it() -> None:
    code = proofs.code(SECRET, NOW)

    assert judged(code, via=Via.CODE, captured=59).verdict is Verdict.VERIFIED
    assert judged(f"{code[:3]} {code[3:]}", via=Via.CODE, captured=119).verdict is Verdict.VERIFIED
    assert judged(code, via=Via.CODE, captured=121).verdict is Verdict.EXPIRED
    assert judged("12345", via=Via.CODE).verdict is Verdict.BAD


def test_the_link_proves_the_meeting_but_no_time() -> None:
    proof = proofs.link_proof(MEETING, "let-me-in")

    assert judged(proof, via=Via.LINK).verdict is Verdict.VERIFIED
    assert judged(proof, via=Via.LINK, received=3600).verdict is Verdict.UNVERIFIED
    assert judged(proof, via=Via.LINK, link=None).verdict is Verdict.BAD
    assert judged(proofs.link_proof(OTHER, "let-me-in"), via=Via.LINK).verdict is Verdict.BAD


def test_a_tap_proves_nothing() -> None:
    assert judged(None, via=Via.TAP).verdict is Verdict.UNVERIFIED


def test_what_is_shown_is_what_is_taken() -> None:
    shown = proofs.current_codes(SECRET, MEETING, "let-me-in", after(7), "https://muster.example")

    assert judged(shown.qr_url.rpartition("/")[2], captured=7).verdict is Verdict.VERIFIED
    assert judged(shown.code, via=Via.CODE, captured=7).verdict is Verdict.VERIFIED
    assert shown.link is not None
    assert judged(shown.link.rpartition("/")[2], via=Via.LINK, captured=7).verdict is Verdict.VERIFIED
    assert shown.expires_at == after(15)


@given(
    st.text(max_size=60),
    st.sampled_from(list(Via)),
    st.integers(-5000, 5000),
    st.integers(0, 5000),
    st.booleans(),
)
def test_no_text_is_ever_a_proof_by_luck_nor_an_error(
    text: str, via: Via, captured: int, delay: int, known: bool
) -> None:
    judgement = judged(text, via=via, captured=captured, received=captured + delay, known=known)

    if via is Via.QR:
        assert judgement.verdict is Verdict.BAD


@given(st.integers(0, 10**10), st.integers(-45, 60))
def test_a_token_is_verified_exactly_within_one_step(second: int, offset: int) -> None:
    shown_at = NOW.fromtimestamp(second, NOW.tzinfo)
    token = proofs.qr_token(SECRET, MEETING, shown_at)
    captured = shown_at + timedelta(seconds=offset)
    judgement = proofs.judge(
        via=Via.QR, proof=token, meeting_id=MEETING, secret=SECRET, link_token=None,
        captured_at=captured, received_at=captured, is_clock_known=True,
    )  # fmt: skip
    steps_apart = abs(int(captured.timestamp() // 15) - second // 15)

    assert (judgement.verdict is Verdict.VERIFIED) == (steps_apart <= 1)
