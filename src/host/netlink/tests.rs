//! The facade against the running kernel, each test in a network namespace of its own.

use super::{
    testnet::{in_namespace, shell},
    *,
};

fn name(text: &str) -> PortName {
    text.parse().unwrap()
}

const ADDRESS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 99, 0, 1), 24);

#[test]
fn root_a_bridge_is_made_once_and_stays_as_it_is() {
    in_namespace("host::netlink::tests::root_a_bridge_is_made_once_and_stays_as_it_is", || {
        let br = name("br0");
        assert_eq!(bridge(&br, ADDRESS).unwrap(), Changed::Changed);
        assert_eq!(bridge(&br, ADDRESS).unwrap(), Changed::AlreadyTrue);
        let seen = observe_chassis(&br, &[]).unwrap();
        assert!(seen.bridge_up);
        assert_eq!(seen.addresses, BTreeSet::from([ADDRESS]));
        assert_eq!(shell("cat /sys/class/net/br0/bridge/stp_state").trim(), "0");
        shell("ip link set br0 down; ip addr del 10.99.0.1/24 dev br0");
        assert_eq!(bridge(&br, ADDRESS).unwrap(), Changed::Changed);
        assert_eq!(bridge(&br, ADDRESS).unwrap(), Changed::AlreadyTrue);
    });
}

#[test]
fn root_an_interface_that_is_no_bridge_is_left_alone() {
    in_namespace("host::netlink::tests::root_an_interface_that_is_no_bridge_is_left_alone", || {
        shell("ip link add br0 type veth peer name other");
        assert_eq!(bridge(&name("br0"), ADDRESS).unwrap_err().kind(), Kind::Exists);
        let seen = observe_chassis(&name("br0"), &[]).unwrap();
        assert!(!seen.bridge_up && seen.addresses.is_empty());
        assert_eq!(port(&name("other"), &name("br0"), true).unwrap_err().kind(), Kind::Exists);
    });
}

#[test]
fn root_a_port_is_up_isolated_and_of_the_bridge() {
    in_namespace("host::netlink::tests::root_a_port_is_up_isolated_and_of_the_bridge", || {
        let (br, v0) = (name("br0"), name("v0"));
        bridge(&br, ADDRESS).unwrap();
        assert_eq!(port(&v0, &br, true).unwrap_err().kind(), Kind::Missing);
        shell("ip link add v0 type veth peer name v1; ip link set v1 up");
        for isolated in [true, false, true] {
            assert_eq!(port(&v0, &br, isolated).unwrap(), Changed::Changed);
            assert_eq!(port(&v0, &br, isolated).unwrap(), Changed::AlreadyTrue);
            let seen = observe_chassis(&br, &[v0.clone(), name("v9")]).unwrap();
            let expected = ObservedPort { up: true, carrier: true, master: Some(br.clone()), isolated };
            assert_eq!(seen.ports[&v0], expected);
            assert_eq!(seen.ports.get(&name("v9")), None);
            let kernel = shell("cat /sys/class/net/v0/brport/isolated");
            assert_eq!(kernel.trim() == "1", isolated);
        }
    });
}

#[test]
fn root_a_port_of_another_bridge_is_not_stolen() {
    in_namespace("host::netlink::tests::root_a_port_of_another_bridge_is_not_stolen", || {
        shell(
            "ip link add v0 type veth peer name v1; ip link add other type bridge; ip link set v0 master other",
        );
        bridge(&name("br0"), ADDRESS).unwrap();
        let error = port(&name("v0"), &name("br0"), true).unwrap_err();
        assert_eq!(error.kind(), Kind::Exists);
        assert!(error.chain().contains("'other'"), "{}", error.chain());
        assert!(shell("ip link show v0").contains("master other"));
    });
}

#[test]
fn root_a_dump_that_the_kernel_refuses_is_an_error() {
    in_namespace("host::netlink::tests::root_a_dump_that_the_kernel_refuses_is_an_error", || {
        run(async {
            let mut client = Client::open()?;
            // Flags are not among the things that a forwarding table can be asked by.
            let mut request = netlink_packet_route::neighbour::NeighbourMessage::default();
            request.header.family = AddressFamily::Bridge;
            request.header.flags = netlink_packet_route::neighbour::NeighbourFlags::Own;
            let request = RouteNetlinkMessage::GetNeighbour(request);
            let error = client.dump("list the table of nobody", request).await.unwrap_err();
            assert_eq!(error.chain(), "list the table of nobody: Invalid argument (os error 22)");
            Ok(())
        })
        .unwrap();
    });
}
