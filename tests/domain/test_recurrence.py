"""A series meets at the wall time that was asked for, wherever it is and whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.inputs import InvalidInput
from domain.recurrence import Pattern, check_pattern, format_dates, parse_dates, parse_local_time, parse_rule

# Hours, half hours and quarters; both hemispheres; a change by half an hour; no change at all.
ZONES = [
    "America/New_York",
    "Europe/Berlin",
    "Pacific/Auckland",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "America/St_Johns",
    "America/Santiago",
    "Africa/Casablanca",
    "Pacific/Chatham",
    "UTC",
]


def a_pattern(
    rule: str = "FREQ=WEEKLY;BYDAY=MO",
    *,
    starts_on: date = date(2026, 10, 5),
    at: str = "09:00",
    zone: str = "America/New_York",
    duration_min: int = 50,
    except_on: str = "",
    extra_on: str = "",
) -> Pattern:
    return Pattern(
        starts_on=starts_on,
        local_time=parse_local_time(at),
        duration_min=duration_min,
        zone=zone,
        rule=parse_rule(rule),
        except_on=parse_dates(except_on),
        extra_on=parse_dates(extra_on),
    )


def starts(pattern: Pattern, first: date, last: date) -> list[str]:
    return [f"{o.start:%m-%d %H:%M}" for o in pattern.occurrences(first, last)]


def test_a_lesson_in_new_york_stays_at_nine_when_daylight_saving_ends_on_1_november_2026() -> None:
    pattern = a_pattern()

    assert starts(pattern, date(2026, 10, 19), date(2026, 11, 9)) == [
        "10-19 13:00",
        "10-26 13:00",
        "11-02 14:00",
        "11-09 14:00",
    ]


def test_a_lesson_in_new_york_stays_at_nine_when_daylight_saving_begins_on_8_march_2026() -> None:
    pattern = a_pattern(starts_on=date(2026, 3, 2))

    assert starts(pattern, date(2026, 3, 2), date(2026, 3, 9)) == ["03-02 14:00", "03-09 13:00"]


def test_a_lesson_in_berlin_stays_at_eight_when_daylight_saving_ends_on_25_october_2026() -> None:
    pattern = a_pattern("FREQ=WEEKLY;BYDAY=FR,MO", at="08:00", zone="Europe/Berlin")

    assert starts(pattern, date(2026, 10, 23), date(2026, 10, 26)) == ["10-23 06:00", "10-26 07:00"]


def test_a_lesson_in_auckland_stays_at_nine_when_daylight_saving_begins_on_27_september_2026() -> None:
    pattern = a_pattern(starts_on=date(2026, 9, 21), zone="Pacific/Auckland")

    assert starts(pattern, date(2026, 9, 21), date(2026, 9, 28)) == ["09-20 21:00", "09-27 20:00"]


def test_a_zone_with_half_an_hour_and_one_that_changes_by_half_an_hour_are_met_to_the_minute() -> None:
    kolkata = a_pattern(zone="Asia/Kolkata")
    lord_howe = a_pattern(starts_on=date(2026, 9, 28), zone="Australia/Lord_Howe")

    assert starts(kolkata, date(2026, 10, 5), date(2026, 10, 5)) == ["10-05 03:30"]
    assert starts(lord_howe, date(2026, 9, 28), date(2026, 10, 5)) == ["09-27 22:30", "10-04 22:00"]


def test_a_lesson_across_the_change_lasts_its_real_minutes() -> None:
    pattern = a_pattern("FREQ=DAILY", starts_on=date(2026, 11, 1), at="00:30", duration_min=120)

    [occurrence] = pattern.occurrences(date(2026, 11, 1), date(2026, 11, 1))

    assert occurrence.end - occurrence.start == timedelta(minutes=120)
    assert occurrence.end.astimezone(ZoneInfo("America/New_York")).time() == time(1, 30)


def test_a_wall_time_that_occurs_twice_is_the_first_of_the_two() -> None:
    pattern = a_pattern("FREQ=DAILY", starts_on=date(2026, 11, 1), at="01:30")

    assert starts(pattern, date(2026, 11, 1), date(2026, 11, 1)) == ["11-01 05:30"]


def test_a_wall_time_that_the_clocks_skip_is_refused_with_its_date_and_what_to_do() -> None:
    pattern = a_pattern("FREQ=WEEKLY;BYDAY=SU;UNTIL=20260401", starts_on=date(2026, 3, 1), at="02:30")

    with pytest.raises(
        InvalidInput, match=r"02:30 does not exist on 2026-03-08 in America/New_York.*except_on"
    ):
        check_pattern(pattern)


def test_a_wall_time_that_is_skipped_years_from_now_is_refused_too() -> None:
    with pytest.raises(InvalidInput, match="2027-03-14"):
        check_pattern(a_pattern("FREQ=DAILY", at="02:30"))


def test_leaving_the_skipped_date_out_makes_the_series_possible() -> None:
    rule = "FREQ=WEEKLY;BYDAY=SU;UNTIL=20260401"

    check_pattern(a_pattern(rule, starts_on=date(2026, 3, 1), at="02:30", except_on="2026-03-08"))


def test_a_time_that_a_later_law_skips_moves_forward_and_breaks_nothing() -> None:
    pattern = a_pattern("FREQ=DAILY", starts_on=date(2026, 3, 7), at="02:30")

    assert starts(pattern, date(2026, 3, 7), date(2026, 3, 9)) == [
        "03-07 07:30",
        "03-08 07:30",
        "03-09 06:30",
    ]


def test_a_rule_ends_with_its_until_date_inclusive_and_with_its_count() -> None:
    until = a_pattern("FREQ=WEEKLY;BYDAY=MO;UNTIL=20261019")
    count = a_pattern("FREQ=WEEKLY;BYDAY=MO;COUNT=3")

    far = date(2030, 1, 1)

    expected = [date(2026, 10, 5), date(2026, 10, 12), date(2026, 10, 19)]
    assert until.dates(until.starts_on, far) == expected
    assert count.dates(count.starts_on, far) == expected
    assert count.dates(date(2026, 10, 13), far) == expected[2:], (
        "the count begins with the series, not the window"
    )


def test_exceptions_are_left_out_and_extra_dates_are_added_in_order() -> None:
    pattern = a_pattern(
        "FREQ=WEEKLY;BYDAY=MO;COUNT=3", except_on="2026-10-12,2026-10-15", extra_on="2026-10-07,2026-10-15"
    )

    assert (
        format_dates(pattern.dates(pattern.starts_on, date(2027, 1, 1))) == "2026-10-05,2026-10-07,2026-10-19"
    )


def test_every_other_week_and_the_last_friday_of_the_month_are_understood() -> None:
    fortnightly = a_pattern("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE")
    monthly = a_pattern("FREQ=MONTHLY;BYDAY=-1FR")

    last = date(2026, 11, 30)

    assert format_dates(fortnightly.dates(fortnightly.starts_on, date(2026, 10, 22))) == (
        "2026-10-05,2026-10-07,2026-10-19,2026-10-21"
    )
    assert format_dates(monthly.dates(monthly.starts_on, last)) == "2026-10-30,2026-11-27"


@given(
    zone=st.sampled_from(ZONES),
    starts_on=st.dates(date(2021, 1, 1), date(2035, 1, 1)),
    at=st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    days=st.sets(st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"]), min_size=1),
    interval=st.integers(1, 4),
)
def test_every_occurrence_has_the_wall_time_that_was_asked_for(
    zone: str, starts_on: date, at: time, days: set[str], interval: int
) -> None:
    rule = f"FREQ=WEEKLY;INTERVAL={interval};BYDAY={','.join(days)}"
    pattern = a_pattern(rule, zone=zone, starts_on=starts_on, at=f"{at:%H:%M}")
    try:
        check_pattern(pattern)
    except InvalidInput as error:
        assume("does not exist" not in str(error))
        raise

    found = pattern.occurrences(starts_on, starts_on + timedelta(days=400))

    assert found
    for occurrence in found:
        local = occurrence.start.astimezone(ZoneInfo(zone))
        assert (local.date(), local.time(), local.fold) == (occurrence.on, at, 0)
        assert occurrence.start.utcoffset() == timedelta(0)
        assert local.strftime("%a")[:2].upper() in days


@given(
    st.text(max_size=250) | st.from_regex(r"(FREQ=[A-Z]+;)?([A-Z]{3,10}=[-+0-9A-Z,]*;?){0,4}", fullmatch=True)
)
def test_any_text_is_either_a_rule_that_reads_back_the_same_or_a_clear_refusal(text: str) -> None:
    try:
        rule = parse_rule(text)
    except InvalidInput as error:
        assert (error.field, bool(error.message)) == ("rrule", True)  # noqa: PT017  # either way is right
    else:
        assert parse_rule(str(rule)) == rule
        list(rule.dates(date(2026, 1, 1), date(2027, 1, 1)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "NAME=value"),
        ("FREQ", "NAME=value"),
        ("FREQ=HOURLY", "FREQ must be one of DAILY, WEEKLY, MONTHLY, got HOURLY"),
        ("FREQ=YEARLY", "FREQ must be one of"),
        ("BYDAY=MO", "FREQ must be one of DAILY, WEEKLY, MONTHLY, got none"),
        ("FREQ=WEEKLY;FREQ=DAILY", "FREQ is given twice"),
        ("FREQ=WEEKLY;BYHOUR=1,2,3", "a rule may have .*, got 'BYHOUR'"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL must be 1-52, got 0"),
        ("FREQ=WEEKLY;INTERVAL=٣", "INTERVAL must be 1-52"),
        ("FREQ=WEEKLY;BYDAY=XX", "BYDAY must hold days such as MO, got 'XX'"),
        ("FREQ=WEEKLY;BYDAY=1MO", "BYDAY must hold days such as MO, got '1MO'"),
        ("FREQ=WEEKLY;BYMONTHDAY=3", "BYMONTHDAY goes with FREQ=MONTHLY, got FREQ=WEEKLY"),
        ("FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY counts from 1"),
        ("FREQ=MONTHLY;BYMONTHDAY=32", "BYMONTHDAY must be -31-31, got 32"),
        ("FREQ=MONTHLY;BYSETPOS=1", "BYSETPOS chooses among"),
        ("FREQ=DAILY;COUNT=0", "COUNT must be 1-1000, got 0"),
        ("FREQ=DAILY;COUNT=5000", "COUNT must be 1-1000, got 5000"),
        ("FREQ=DAILY;COUNT=3;UNTIL=20261218", "COUNT or UNTIL, not both"),
        ("FREQ=DAILY;UNTIL=20261318", "UNTIL must be the last date, such as 20261218, got 20261318"),
        ("FREQ=DAILY;UNTIL=20261218T090000Z", "UNTIL must be the last date"),
        ("FREQ=WEEKLY;WKST=XX", "WKST must be one of"),
        ("FREQ=WEEKLY;" * 50, "at most 200 characters"),
    ],
)
def test_a_malformed_rule_is_refused_with_what_was_expected_and_what_came(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        parse_rule(text)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (a_pattern("FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30"), "gives no date"),
        (a_pattern("FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30;COUNT=5"), "gives no date"),
        (a_pattern("FREQ=DAILY;UNTIL=20261004"), "UNTIL must lie between 2026-10-05"),
        (a_pattern("FREQ=DAILY;UNTIL=20991231"), "UNTIL must lie between"),
        (a_pattern("FREQ=DAILY;COUNT=1", except_on="2026-10-05"), "gives no date"),
        (a_pattern(duration_min=0), "duration_min must be 1-1440, got 0"),
        (a_pattern(starts_on=date(1999, 1, 1)), "starts_on must lie between 2020 and 2100"),
        (a_pattern(extra_on="2025-01-01"), "extra_on must lie between"),
    ],
)
def test_a_series_that_could_never_be_laid_out_is_refused(pattern: Pattern, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        check_pattern(pattern)


def test_dates_and_times_that_are_none_are_refused() -> None:
    for text in ("9:00", "24:00", "09:60", "09:00:00", "noon", ""):
        with pytest.raises(InvalidInput, match="local_time must look like 09:00"):
            parse_local_time(text)
    with pytest.raises(InvalidInput, match="a date must look like 2026-12-18, got '2026-13-01'"):
        parse_dates("2026-12-01, 2026-13-01")


def test_instants_are_utc() -> None:
    [occurrence] = a_pattern().occurrences(date(2026, 10, 5), date(2026, 10, 5))

    assert occurrence.start == datetime(2026, 10, 5, 13, 0, tzinfo=UTC)
