//! What is found in slices as the API tells of them (`tests/data`).

use k8s_openapi::List;
use kube::core::WatchEvent;
use serde_json::{Value, json};

use super::*;

const LIST: &str = include_str!("../../tests/data/list.json");
const WATCH: &str = include_str!("../../tests/data/watch.jsonl");

fn table(port: Port, family: Option<Family>) -> Table {
    let mut table = Table::new("shop/orders", port, family);
    let list: List<EndpointSlice> = serde_json::from_str(LIST).unwrap();
    list.items.iter().for_each(|slice| table.set(slice));
    table
}

fn http() -> Port {
    Port::Name("http".to_owned())
}

fn addresses(found: &Found) -> Vec<String> {
    found.pods.iter().map(|pod| pod.address.to_string()).collect()
}

#[test]
fn a_list_and_what_changed_after_it() {
    let mut table = table(http(), None);
    let mut after = vec![(addresses(&table.found()), table.found().remark)];
    for line in WATCH.lines() {
        match serde_json::from_str::<WatchEvent<EndpointSlice>>(line).unwrap() {
            WatchEvent::Added(slice) | WatchEvent::Modified(slice) => table.set(&slice),
            WatchEvent::Deleted(slice) => table.remove(&slice),
            WatchEvent::Bookmark(bookmark) => assert_eq!(bookmark.metadata.resource_version, "48305"),
            WatchEvent::Error(status) => assert_eq!((status.code, &*status.reason), (410, "Expired")),
        }
        after.push((addresses(&table.found()), table.found().remark));
    }
    let of = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let (one, two) = ("10.244.1.17:8080", "10.244.2.17:8080");
    let (three, four) = ("10.244.3.17:8080", "10.244.1.23:8080");
    let (six_one, six_two) = ("[fd00:10:244:1::11]:8080", "[fd00:10:244:2::11]:8080");
    let ending = "no pod of `shop/orders` is ready; those that end and still serve are used";
    let expected = [
        // The list: what is not ready is left out, in both families.
        (of(&[one, two, six_one, six_two]), None),
        (of(&[one, two, three, six_one, six_two]), None),
        (of(&[one, two, three, six_one, six_two]), None),
        // A pod that is in two slices counts once.
        (of(&[one, two, three, four, six_one, six_two]), None),
        (of(&[one, two, three, four]), None),
        (of(&[one, two, three]), None),
        (of(&[one, two]), Some(ending.to_owned())),
        (of(&[]), Some("`shop/orders` has no pods".to_owned())),
        (of(&[]), Some("`shop/orders` has no pods".to_owned())),
    ];
    // Slices count in the order of their names: 7xk2p, m2n8b, q9c4d.
    assert_eq!(after, expected);
}

#[test]
fn one_family_where_one_is_wanted() {
    for (family, expected) in [
        (Family::V4, ["10.244.1.17:8080", "10.244.2.17:8080"]),
        (Family::V6, ["[fd00:10:244:1::11]:8080", "[fd00:10:244:2::11]:8080"]),
    ] {
        let found = table(http(), Some(family)).found();
        assert_eq!((addresses(&found), found.remark), (expected.map(str::to_owned).to_vec(), None));
    }
}

#[test]
fn pods_have_the_zone_of_their_node() {
    let found = table(http(), Some(Family::V4)).found();
    let zones: Vec<_> = found.pods.iter().map(|pod| pod.zone.as_deref().unwrap()).collect();
    assert_eq!(zones, ["eu-west-1a", "eu-west-1b"]);
}

fn of_slice(slice: &Value, port: Port) -> Found {
    let mut table = Table::new("shop/orders", port, None);
    table.set(&serde_json::from_value(slice.clone()).unwrap());
    table.found()
}

/// A slice as somebody other than the controller may write it, with no more than must be there.
fn short(ports: &Value, endpoints: &Value) -> Value {
    json!({"metadata": {"name": "short"}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints})
}

#[test]
fn ports_by_name_and_by_number() {
    let one = json!([{"addresses": ["10.0.0.1"]}]);
    let name = |name: &str| Port::Name(name.to_owned());
    let several = json!([
        {"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "protocol": "TCP", "port": 53},
        {"name": "web", "port": 80}, {"name": "sctp", "protocol": "SCTP", "port": 9}
    ]);
    for (ports, port, expected) in [
        (&several, name("web"), Some(80)),
        (&several, Port::Number(80), Some(80)),
        (&several, Port::Number(53), Some(53)),
        (&several, name("dns"), None),
        (&several, Port::Number(9), None),
        (&several, name("http"), None),
        (&several, name(""), None),
        (&json!([{"protocol": "TCP", "port": 8080}]), name(""), Some(8080)),
        (&json!([{"name": "", "protocol": "TCP", "port": 8080}]), name(""), Some(8080)),
        // Without a number it is any.
        (&json!([{"name": "any", "protocol": "TCP"}]), Port::Number(4711), Some(4711)),
        (&json!([{"name": "any", "protocol": "TCP"}]), name("any"), None),
        (&json!([{"name": "any", "protocol": "UDP"}]), Port::Number(4711), None),
        (&json!([{"name": "bad", "port": 70_000}]), name("bad"), None),
        (&json!([]), Port::Number(80), None),
        (&Value::Null, Port::Number(80), None),
    ] {
        let found = of_slice(&short(ports, &one), port.clone());
        let expected: Vec<_> = expected.iter().map(|port: &u16| format!("10.0.0.1:{port}")).collect();
        assert_eq!(addresses(&found), expected, "{ports} {port}");
        if expected.is_empty() {
            let remark = found.remark.unwrap();
            assert!(remark.contains(&format!("slice `short` has no TCP port {port}; it has ")), "{remark}");
        }
    }
    let remark = of_slice(&short(&several, &one), name("http")).remark.unwrap();
    assert!(
        remark.ends_with("it has `dns` (53/UDP), `dns-tcp` (53/TCP), `web` (80/TCP), `sctp` (9/SCTP)"),
        "{remark}"
    );
}

#[test]
fn conditions_that_are_not_said_count_as_the_api_says() {
    for (conditions, state) in [
        (Value::Null, State::Ready),
        (json!({}), State::Ready),
        (json!({"ready": true}), State::Ready),
        (json!({"ready": null, "serving": null, "terminating": null}), State::Ready),
        (json!({"ready": false}), State::Away),
        (json!({"ready": false, "serving": true}), State::Away),
        (json!({"ready": false, "terminating": true}), State::Ending),
        (json!({"ready": false, "serving": true, "terminating": true}), State::Ending),
        (json!({"ready": false, "serving": false, "terminating": true}), State::Away),
        // `publishNotReadyAddresses`.
        (json!({"ready": true, "serving": false, "terminating": true}), State::Ready),
    ] {
        let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": conditions});
        assert_eq!(State::of(&serde_json::from_value(endpoint).unwrap()), state, "{conditions}");
    }
}

#[test]
fn one_that_is_ready_keeps_those_that_end_away() {
    let ports = json!([{"name": "http", "port": 80}]);
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    let endpoints = |ready: bool| {
        json!([
            {"addresses": ["10.0.0.1"], "conditions": ending},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": ready, "serving": ready}}
        ])
    };
    assert_eq!(addresses(&of_slice(&short(&ports, &endpoints(true)), http())), ["10.0.0.2:80"]);
    assert_eq!(addresses(&of_slice(&short(&ports, &endpoints(false)), http())), ["10.0.0.1:80"]);
}

#[test]
fn what_leads_nowhere_is_left_out_and_said() {
    let ports = json!([{"name": "http", "port": 80}]);
    let mut names = short(&ports, &json!([{"addresses": ["db.example.org"]}]));
    names["addressType"] = "FQDN".into();
    let found = of_slice(&names, http());
    assert!(found.pods.is_empty());
    assert!(found.remark.unwrap().contains("slice `short` has addresses of type \"FQDN\""));

    // The second address of an endpoint has no meaning; one that cannot be read takes no other along.
    let mixed =
        json!([{"addresses": ["10.0.0.1", "10.0.0.9"]}, {"addresses": ["fd00::1"]}, {"addresses": []}]);
    let found = of_slice(&short(&ports, &mixed), http());
    assert_eq!(addresses(&found), ["10.0.0.1:80"]);
    assert_eq!(found.remark.unwrap(), "slice `short` has \"\" for an address");

    let none = Table::new("shop/orders", http(), None).found();
    assert_eq!(none.remark.unwrap(), "there is no EndpointSlice of a Service `shop/orders`");
    let away = json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]);
    let found = of_slice(&short(&ports, &away), http());
    assert_eq!(found.remark.unwrap(), "none of the 1 pods of `shop/orders` is ready");
}

#[test]
fn numbers_have_bounds() {
    let mut table = Table::new("shop/orders", Port::Number(80), None);
    let slice = |number: usize| -> EndpointSlice {
        let endpoints: Vec<_> = (0..8)
            .map(|host| json!({"addresses": [format!("10.{}.{}.{host}", number / 256, number % 256)]}))
            .collect();
        let mut slice = short(&json!([{"port": 80}]), &json!(endpoints));
        slice["metadata"]["name"] = format!("orders-{number:04}").into();
        serde_json::from_value(slice).unwrap()
    };
    (0..MAX_SLICES + 5).for_each(|number| table.set(&slice(number)));
    let found = table.found();
    assert_eq!((table.slices.len(), found.pods.len()), (MAX_SLICES, MAX_PODS));
    assert_eq!(found.pods[0].address.to_string(), "10.0.0.0:80");
    let remark = found.remark.unwrap();
    assert!(remark.contains("has 2048 pods, of which 1024 are used"), "{remark}");
    assert!(remark.contains("has more than 256 slices"), "{remark}");
    // There is room again.
    (0..MAX_SLICES).for_each(|number| table.remove(&slice(number)));
    (MAX_SLICES..MAX_SLICES + 5).for_each(|number| table.remove(&slice(number)));
    table.set(&slice(MAX_SLICES + 1));
    assert_eq!((table.found().pods.len(), table.found().remark), (8, None));

    let many: Vec<_> =
        (0..2000).map(|host| json!({"addresses": [format!("10.0.{}.{}", host / 250, host % 250)]})).collect();
    let mut table = Table::new("shop/orders", Port::Number(80), None);
    table.set(&serde_json::from_value(short(&json!([{"port": 80}]), &json!(many))).unwrap());
    assert_eq!(table.slices["short"].pods.len(), MAX_ENDPOINTS_OF_SLICE);
}
