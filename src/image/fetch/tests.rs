//! Fetching: what goes on where it was, and what begins anew.

use super::*;
use crate::image::Source;

fn folder() -> (tempfile::TempDir, Folder) {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::make(parent.path(), &"x".parse().unwrap()).unwrap();
    (parent, folder)
}

fn about(version: Option<&str>) -> About {
    About { url: "hash".into(), total: Some(Bytes(10)), version: version.map(str::to_owned) }
}

#[test]
fn the_url_is_one_line_of_the_configuration() {
    let Source::Url(url) = "https://h/a?b=$c#d".parse().unwrap() else { panic!("a URL") };
    let ((_parent, folder), image) = (folder(), "x".parse().unwrap());
    let fetch = Fetch { image: &image, url: &url, folder: &folder, stall: Duration::from_secs(60) };
    let text = String::from_utf8(fetch.config("head\n")).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("url")).count(), 1);
    assert!(text.starts_with("url = \"https://h/a?b=$c#d\"\n") && text.ends_with("speed-time = 60\nhead\n"));
    assert!(text.lines().all(|line| line == line.trim()), "{text}");
}

#[test]
fn what_a_server_says_is_taken_only_where_it_is_harmless() {
    let read = |said: &str| About::read("u".into(), said);
    let date = "Sun, 22 Nov 2026 10:00:00 GMT";
    let of = |total: Option<u64>, version: Option<&str>| About {
        url: "u".into(),
        total: total.map(Bytes),
        version: version.map(str::to_owned),
    };
    assert_eq!(read(&format!("12\r\n\"abc\"\r\n{date}\r\n")), of(Some(12), Some("\"abc\"")));
    assert_eq!(read(&format!("12\nW/\"weak\"\n{date}\n")), of(Some(12), Some(date)));
    assert_eq!(read("x\n\"a\\b\"\na\\b\n"), of(None, None));
    assert_eq!(read(""), of(None, None));
}

#[test]
fn a_part_of_the_same_version_is_gone_on_with_and_any_other_begins_anew() {
    let (_parent, folder) = folder();
    let mut part = Part::open(&folder, about(Some("\"1\""))).unwrap();
    part.take(b"12345").unwrap();
    drop(part);
    let part = Part::open(&folder, about(Some("\"1\""))).unwrap();
    assert_eq!(part.done, 5);
    assert_eq!(part.range(), "continue-at = 5\nheader = \"If-Range: \\\"1\\\"\"\n");
    for other in [about(Some("\"2\"")), about(None), About { url: "other".into(), ..about(Some("\"1\"")) }] {
        let part = Part::open(&folder, other).unwrap();
        assert_eq!((part.done, part.range().as_str()), (0, ""));
        let mut part = Part::anew(&folder, about(Some("\"1\""))).unwrap();
        part.take(b"12345").unwrap();
    }
}

#[test]
fn a_source_that_ends_early_or_has_no_room_is_an_error() {
    let (_parent, folder) = folder();
    let mut part = Part::open(&folder, about(None)).unwrap();
    part.take(b"123").unwrap();
    assert!(!part.is_whole() && !part.may_go_on());
    assert_eq!(part.finish(&folder).unwrap_err().kind(), Kind::Failed);
    let huge = About { total: Some(Bytes(u64::MAX)), ..about(None) };
    assert_eq!(Part::open(&folder, huge).err().map(|e| e.kind()), Some(Kind::Full));
}

#[test]
fn a_broken_line_passes_and_a_wrong_address_does_not() {
    let error = |text: &str| Error::new(Kind::Failed, format!("unit 'x': exit status {text}"));
    for text in ["56: reset", "28: slow", "22: The requested URL returned error: 503"] {
        assert!(passes(&error(text)), "{text}");
    }
    for text in ["22: The requested URL returned error: 404", "60: certificate", "3: malformed"] {
        assert!(!passes(&error(text)), "{text}");
    }
    assert!(!passes(&Error::new(Kind::Full, "write '/x'")));
}
