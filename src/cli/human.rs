//! Facts as people read them: times, shares, phases.

use anstyle::Style;

use super::table::{BAD, FAINT, GOOD, PLAIN, WAITS};
use crate::{
    model::Bytes,
    status::{BladePhase, Millis, Moment},
};

/// What stands where there is nothing to say.
pub(super) const NONE: &str = "-";

/// Returns how long ago something was: `12 s ago`.
pub(super) fn ago(now: Millis, then: Millis) -> String {
    match now.saturating_sub(then) / 1000 {
        0 => "just now".into(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// Returns a span of time in its largest unit: `12 s`, `3 min`, `5 h`, `2 d`.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// Returns a point in time as UTC: `2026-11-22 13:45:07Z`. The journal shows the appliance's own zone.
pub(super) fn clock(at: Millis) -> String {
    let seconds = at / 1000;
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Returns a time both ways: `12 s ago (2026-11-22 13:45:07Z)`.
pub(super) fn when(now: Millis, then: Millis) -> String {
    format!("{} ({})", ago(now, then), clock(then))
}

/// Returns year, month and day of a number of days since 1970-01-01 in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

/// Returns a share: `12 %`.
pub(super) fn percent(share: f32) -> String {
    format!("{share:.0} %")
}

/// Returns bytes and the operations that they took: `1.5 GiB (20481)`.
pub(super) fn traffic(bytes: u64, operations: u64) -> String {
    format!("{} ({operations})", Bytes(bytes).human())
}

/// Returns the text, or a dash.
pub(super) fn or_none<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| NONE.into(), T::to_string)
}

/// Returns a phase's word, the same as in JSON.
pub(super) fn phase(phase: BladePhase) -> &'static str {
    match phase {
        BladePhase::Absent => "absent",
        BladePhase::Seen => "seen",
        BladePhase::Prompted => "prompted",
        BladePhase::Waiting => "waiting",
        BladePhase::Installing => "installing",
        BladePhase::Ready => "ready",
        BladePhase::Booting => "booting",
        BladePhase::Running => "running",
        BladePhase::Refused => "refused",
        BladePhase::Pending => "pending",
        BladePhase::Degraded => "degraded",
        BladePhase::Failed => "failed",
        BladePhase::Ignored => "ignored",
    }
}

/// Returns the style of a phase: who needs somebody stands out, who is away does not.
pub(super) fn phase_style(phase: BladePhase) -> Style {
    match phase {
        BladePhase::Running => GOOD,
        BladePhase::Refused | BladePhase::Pending | BladePhase::Degraded | BladePhase::Failed => BAD,
        BladePhase::Prompted | BladePhase::Waiting => WAITS,
        BladePhase::Absent | BladePhase::Ignored => FAINT,
        BladePhase::Seen | BladePhase::Installing | BladePhase::Ready | BladePhase::Booting => PLAIN,
    }
}

/// Returns a moment's word, the same as in JSON.
pub(super) fn moment(moment: Moment) -> &'static str {
    match moment {
        Moment::Seen => "seen",
        Moment::Dhcp => "dhcp",
        Moment::Script => "script",
        Moment::Choice => "choice",
        Moment::TargetReady => "target-ready",
        Moment::IpxeLogin => "ipxe-login",
        Moment::OsLogin => "os-login",
    }
}

/// Returns text from outside with its control characters escaped: a blade's serial number moves no cursor.
pub(super) fn tame(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_largest_unit_that_says_enough() {
        let now = 1_000_000_000;
        for (seconds, text) in
            [(0, "just now"), (12, "12 s ago"), (119, "119 s ago"), (180, "3 min ago"), (7200, "2 h ago")]
        {
            assert_eq!(ago(now, now - seconds * 1000), text);
        }
        assert_eq!(ago(now, 0), "11 d ago");
        assert_eq!(ago(0, 5000), "just now");
    }

    #[test]
    fn dates_are_the_calendars() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_798_761_599, "2026-12-31 23:59:59Z"),
            (1_795_355_107, "2026-11-22 13:45:07Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(clock(seconds * 1000), text);
        }
    }

    #[test]
    fn words_are_the_same_as_in_json() {
        for p in [BladePhase::Absent, BladePhase::Running, BladePhase::Refused, BladePhase::Ignored] {
            assert_eq!(serde_json::to_value(p).unwrap(), phase(p));
        }
        for m in [Moment::Seen, Moment::TargetReady, Moment::IpxeLogin, Moment::OsLogin] {
            assert_eq!(serde_json::to_value(m).unwrap(), moment(m));
        }
    }
}
