//! What a configuration file is promised: defaults, inheritance, and all its faults at once.

use super::*;
use crate::config::{KEYS, MenuDefault, Policy, Restart, SAMPLE};

const LEAST: &str =
    "[chassis]\naddress = \"10.77.0.1/24\"\nslots = { 1 = \"ens4\", 2 = \"ens5\", 3 = \"ens6\" }\n";

fn faults(text: &str) -> String {
    let faults = parse("sheath.toml", text).unwrap_err();
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

fn faults_below(rest: &str) -> String {
    faults(&format!("{LEAST}{rest}"))
}

#[test]
fn the_least_file_gets_every_default() {
    insta::assert_debug_snapshot!(parse("sheath.toml", LEAST).unwrap());
}

#[test]
fn the_sample_that_the_package_ships_parses() {
    parse("sheath.toml", SAMPLE).unwrap();
}

#[test]
fn a_written_default_is_the_default() {
    for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
        let table = key.table.replace("NAME", "x");
        let written = match key.table {
            "chassis" => LEAST.replace("[chassis]", &format!("[chassis]\n{} = {}", key.name, key.default)),
            _ => format!("{LEAST}[{table}]\n{} = {}\n", key.name, key.default),
        };
        let mut config = parse("x", &written).unwrap_or_else(|f| panic!("{}: {f:?}", key.name));
        config.images.clear();
        assert_eq!(config, parse("x", LEAST).unwrap(), "{}.{}", key.table, key.name);
    }
}

#[test]
fn every_key_of_the_table_is_read_and_refuses_a_wrong_type() {
    for key in KEYS {
        let name = if key.name == "*" { "1" } else { key.name };
        let table = key.table.replace("*.*", "slot.1").replace("NAME", "x");
        let wrong = format!("{name} = 1979-05-27\n");
        let text = if table.is_empty() { wrong } else { format!("[{table}]\n{wrong}") };
        let path = if table.is_empty() { name.into() } else { format!("{table}.{name}") };
        let faults = parse("x", &text).unwrap_err();
        let found = faults.iter().find(|fault| fault.key == path && fault.found == "1979-05-27");
        let fault = found.unwrap_or_else(|| panic!("{path}: {faults:#?}"));
        assert_eq!(fault.expected, key.expected, "{path}");
    }
}

#[test]
fn every_key_of_the_table_is_in_the_sample() {
    for key in KEYS.iter().filter(|key| key.name != "*" && !key.expected.starts_with("a table")) {
        let shown = SAMPLE.lines().any(|line| {
            line.trim_start_matches('#').split_once(" =").is_some_and(|(name, _)| name == key.name)
        });
        assert!(shown, "{}.{}", key.table, key.name);
    }
}

#[test]
fn narrower_policies_inherit_from_the_default_and_blades_not_from_slots() {
    let config = parse(
        "x",
        &format!(
            "{LEAST}[policy]\nrestart = \"direct\"\nmenu_timeout = 5\n\
             [policy.slot.2]\npolicy = {{ auto = \"debian13\" }}\nhostname = \"web\"\n\
             [policy.blade.\"52:54:00:12:34:56\"]\nmenu_default = {{ install = \"x\" }}\nmenu_timeout = 0\n"
        ),
    )
    .unwrap();
    let slot = &config.policy.slots[&"2".parse().unwrap()];
    assert_eq!(slot.policy, Policy::Auto("debian13".parse().unwrap()));
    assert_eq!((slot.restart, slot.menu_timeout), (Restart::Direct, 5));
    let mac = "52-54-00-12-34-56".parse().unwrap();
    let blade = config.policy_of(mac, "2".parse().unwrap());
    assert_eq!((blade.policy.clone(), blade.hostname.clone()), (Policy::Prompt, None));
    assert_eq!(blade.menu_default, MenuDefault::Install("x".parse().unwrap()));
    assert_eq!((blade.restart, blade.menu_timeout), (Restart::Direct, 0));
}

#[test]
fn of_what_disks_are_like_the_narrowest_table_that_has_the_key_counts() {
    let config = parse(
        "x",
        &format!(
            "{LEAST}[policy]\nswap = \"1GiB\"\nroot = \"keep\"\n\
             [policy.slot.2]\ndisk_size = \"50GiB\"\nswap = \"none\"\n\
             [policy.blade.\"52:54:00:12:34:56\"]\nroot = \"30GiB\"\nreserve = \"2GiB\"\n\
             disk_size = \"40GiB\"\n\
             [image.web]\ndisk_size = \"20GiB\"\ndata = \"4GiB\"\nroot = \"fill\"\n"
        ),
    )
    .unwrap();
    let (web, other) = ("web".parse().unwrap(), "debian13".parse().unwrap());
    let (named, nobody) = ("52:54:00:12:34:56".parse().unwrap(), "52:54:00:00:00:09".parse().unwrap());
    let shown = |blade, slot: &str, image| config.disk_of(blade, slot.parse().unwrap(), image).to_string();
    assert_eq!(shown(nobody, "1", &web), "size:20GiB/root:fill/swap:1GiB/data:4GiB");
    assert_eq!(shown(nobody, "1", &web), config.disk_from(&web).to_string());
    assert_eq!(shown(nobody, "1", &other), "root:keep/swap:1GiB");
    assert_eq!(shown(nobody, "2", &web), "size:50GiB/root:fill/data:4GiB");
    assert_eq!(
        shown(named, "2", &web),
        "size:40GiB/root:30GiB/swap:1GiB/data:4GiB/reserve:2GiB",
        "a blade's table does not inherit from its slot's"
    );
}

#[test]
fn disks_that_nothing_fits_on_are_refused_in_the_narrowest_table_that_asks_for_them() {
    insta::assert_snapshot!(faults_below(
        "[policy]\nswap = \"2GiB\"\n\
         [policy.slot.1]\ndata = \"19GiB\"\n\
         [policy.slot.2]\nroot = \"10GiB\"\n\
         [policy.slot.3]\ndisk_size = \"image\"\ndata = \"500GiB\"\n\
         [image.web]\ndisk_size = \"20GiB\"\n[image.small]\ndisk_size = \"2GiB\"\n\
         [image.odd]\nroot = \"3GiB\"\n"
    ));
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    insta::assert_snapshot!(faults(include_str!("faulty.toml")));
}

#[test]
fn faults_of_syntax_do_not_hide_the_others() {
    insta::assert_snapshot!(faults(
        "[chassis]\naddress = 10.77.0.1/24\nslots = { 1 = \"ens4\" }\nbridge = \"a b\"\n\
         [pool]\nvg = \"sheath\n[dhcp]\nlease = \"12h\"\nlease = \"3h\"\nrange =\n"
    ), @r#"
    sheath.toml:2: expected TOML, found address = 10.77.0.1/24 (invalid float, expected nothing)
    sheath.toml:4: chassis.bridge: expected an interface name (1 to 15 of letters, digits, . _ -, starting with a letter or digit), found "a b"
    sheath.toml:6: expected TOML, found vg = "sheath (invalid basic string, expected `"`)
    sheath.toml:9: expected TOML, found lease = "3h" (duplicate key)
    sheath.toml:10: expected TOML, found range = (string values must be quoted, expected literal string)
    "#);
}

#[test]
fn an_empty_file_lacks_what_has_no_default() {
    insta::assert_snapshot!(faults(""), @r#"
    sheath.toml:1: chassis.address: expected an IPv4 address and its prefix length (8 to 30), such as "10.77.0.1/24", found nothing
    sheath.toml:1: chassis.slots: expected a table of slots, such as { 1 = "eth1" }, found nothing
    "#);
    insta::assert_snapshot!(faults("[chassis]\naddress = \"10.0.0.1/24\"\n[chassis.slots]\n"), @r#"sheath.toml:3: chassis.slots: expected at least one slot, such as 1 = "eth1", found none"#);
}

#[test]
fn ranges_that_do_not_fit_the_network_are_refused() {
    let mut all = String::new();
    for range in [
        "10.77.0.100-10.77.1.5",
        "10.77.0.200-10.77.0.100",
        "10.77.0.1-10.77.0.9",
        "10.77.0.0-10.77.0.9",
        "10.77.0.9-10.77.0.255",
        "10.77.0.10-10.77.0.11",
        "10.77.0.10",
    ] {
        all += &faults_below(&format!("[dhcp]\nrange = \"{range}\"\n"));
    }
    insta::assert_snapshot!(all);
    assert!(parse("x", &format!("{LEAST}[dhcp]\nrange = \"10.77.0.2 - 10.77.0.4\"\n")).is_ok());
}

#[test]
fn a_network_too_small_for_its_slots_is_refused() {
    let text = LEAST.replace("10.77.0.1/24", "10.77.0.1/30");
    insta::assert_snapshot!(faults(&text), @"sheath.toml:2: chassis.address: expected room for 3 blades, found 1 addresses for them, 10.77.0.2-10.77.0.2");
}

#[test]
fn portals_out_of_the_blades_reach_are_refused() {
    let mut all = String::new();
    for portal in
        ["10.78.0.1:3260", "10.77.0.200:3260", "10.77.0.1", "10.77.0.1:0", "[::1]:3260", "10.77.0.1:65530"]
    {
        all += &faults_below(&format!("[target]\nportal = \"{portal}\"\n"));
    }
    insta::assert_snapshot!(all);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "([a-z0-9=\\[\\]{}\"'.,# \n\u{0}-\u{20}é]|policy|chassis|slot|\\[\\[){0,60}") {
        let _ = parse("x", &text);
    }

    #[test]
    fn a_hole_torn_into_a_file_is_told_at_a_line_of_that_file(from in 0_usize..3000, length in 0_usize..200) {
        for whole in [include_str!("faulty.toml"), SAMPLE] {
            let cut = |at: usize| (0..=at.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap();
            let text = format!("{}{}", &whole[..cut(from)], &whole[cut(from + length)..]);
            for fault in parse("x", &text).err().unwrap_or_default() {
                proptest::prop_assert!(fault.line >= 1 && fault.line <= text.lines().count() + 1);
                proptest::prop_assert!(!fault.to_string().contains(char::is_control), "{fault}");
            }
        }
    }
}
