//! The watch against the running kernel, each test in a network namespace of its own.

use std::{collections::BTreeSet, net::Ipv4Addr};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::{
    host::netlink::{
        bridge, port,
        testnet::{in_namespace, plug_blade, shell, wake_blade},
    },
    model::Mac,
    watch::Network,
};

/// A blade is seen within this time of its first frame.
const SEEN: Duration = Duration::from_secs(1);

fn name(text: &str) -> PortName {
    text.parse().unwrap()
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

/// A bridge with one isolated port, its cable in the blade `b1`, and the blade's end down.
fn chassis() {
    bridge(&name("br0"), (Ipv4Addr::new(10, 99, 0, 1), 24)).unwrap();
    plug_blade("s1", "b1", "02:00:00:00:00:b1");
    port(&name("s1"), &name("br0"), true).unwrap();
}

/// Runs `body` beside a watch with this buffer.
fn watched<F: Future<Output = ()>>(buffer: usize, body: impl FnOnce(UnboundedReceiver<WatchEvent>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (events, told) = unbounded_channel();
        let watch = tokio::spawn(run_with(name("br0"), events, buffer));
        body(told).await;
        // The receiver is gone with the body: the watch ends by itself.
        tokio::time::timeout(SEEN, watch).await.unwrap().unwrap();
    });
}

/// Returns the first event for which `wanted` has something, within `time`.
async fn until<T>(
    told: &mut UnboundedReceiver<WatchEvent>,
    time: Duration,
    wanted: impl Fn(&WatchEvent) -> Option<T>,
) -> T {
    let search = async {
        loop {
            let event = told.recv().await.expect("the watch runs");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    tokio::time::timeout(time, search).await.expect("told in time")
}

fn resynced(event: &WatchEvent) -> Option<Network> {
    if let WatchEvent::Resync(network) = event { Some(network.clone()) } else { None }
}

#[test]
fn root_a_blade_is_seen_by_its_first_frame_and_gone_with_its_cable() {
    in_namespace(
        "watch::netlink::tests::root_a_blade_is_seen_by_its_first_frame_and_gone_with_its_cable",
        || {
            chassis();
            watched(EVENT_BUFFER, async |mut told| {
                let network = until(&mut told, SEEN, resynced).await;
                assert!(network.fdb.is_empty() && network.links.contains_key(&name("s1")), "{network:?}");
                wake_blade("b1", "10.99.0.2");
                until(&mut told, SEEN, |e| {
                    matches!(e, WatchEvent::Link { name: n, link } if *n == name("s1") && link.carrier)
                        .then_some(())
                })
                .await;
                let seen = WatchEvent::Fdb { mac: mac("02:00:00:00:00:b1"), port: name("s1"), present: true };
                until(&mut told, SEEN, |e| (*e == seen).then_some(())).await;
                let neigh =
                    WatchEvent::Neigh { ip: Ipv4Addr::new(10, 99, 0, 2), mac: mac("02:00:00:00:00:b1") };
                until(&mut told, SEEN, |e| (*e == neigh).then_some(())).await;
                shell("ip -n b1 link set eth0 down");
                until(&mut told, SEEN, |e| {
                    matches!(e, WatchEvent::Link { name: n, link } if *n == name("s1") && !link.carrier)
                        .then_some(())
                })
                .await;
                shell("ip netns del b1");
                let gone = WatchEvent::LinkGone { name: name("s1") };
                until(&mut told, SEEN, |e| (*e == gone).then_some(())).await;
            });
        },
    );
}

#[test]
fn root_lost_events_lead_to_the_whole_truth() {
    in_namespace("watch::netlink::tests::root_lost_events_lead_to_the_whole_truth", || {
        chassis();
        let lines = (0..2000)
            .map(|i| format!("fdb add 02:01:00:00:{:02x}:{:02x} dev s1 master dynamic\n", i >> 8, i & 255));
        #[allow(clippy::disallowed_methods, reason = "a test's own file")]
        std::fs::write("/run/netns/batch", lines.collect::<String>()).unwrap();
        watched(4096, async |mut told| {
            until(&mut told, SEEN, resynced).await;
            // The shell holds up this thread, so that nobody reads the socket meanwhile.
            shell("ip -n b1 link set eth0 up; bridge -batch /run/netns/batch");
            let whole = |e: &WatchEvent| resynced(e).filter(|network| network.fdb.len() >= 2000);
            let network = until(&mut told, 5 * SEEN, whole).await;
            let ports: BTreeSet<_> = network.fdb.iter().map(|(_, port)| port.clone()).collect();
            assert_eq!(ports, BTreeSet::from([name("s1")]));
        });
    });
}

#[test]
fn root_a_bridge_made_after_the_start_is_watched() {
    in_namespace("watch::netlink::tests::root_a_bridge_made_after_the_start_is_watched", || {
        watched(EVENT_BUFFER, async |mut told| {
            until(&mut told, SEEN, resynced).await;
            // The facade runs a runtime of its own, so it needs a thread of its own.
            std::thread::spawn(chassis).join().unwrap();
            wake_blade("b1", "10.99.0.2");
            let at = (mac("02:00:00:00:00:b1"), name("s1"));
            until(&mut told, SEEN, |e| match e {
                WatchEvent::Fdb { mac, port, present: true } => (*mac == at.0 && *port == at.1).then_some(()),
                WatchEvent::Resync(network) => network.fdb.contains(&at).then_some(()),
                _ => None,
            })
            .await;
        });
    });
}
