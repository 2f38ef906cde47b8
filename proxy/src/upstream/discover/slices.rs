//! Endpoints that Kubernetes tells of: the pods of a Service. While its API is away the old ones stay; when it says that there is
//! none, there is none.

use std::sync::Arc;

use tollgate_slices::{Api, Family, Found, News, Port, Service};

use super::super::Cluster;
use crate::config::{AddressType, Endpoint, EndpointSlices, Placed, SlicePort};

/// Follows the Service until the cluster is closed.
pub(in super::super) async fn run(cluster: Arc<Cluster>, slices: EndpointSlices) {
    let (api, service) = wanted(slices);
    let tell = |news: News| match news {
        News::Found(found) => consist_of(&cluster, found),
        News::Failed(why) => cluster.not_discovered(why),
    };
    tokio::select! {
        () = cluster.closed() => {}
        () = tollgate_slices::follow(&api, &service, tell) => {}
    }
}

fn wanted(slices: EndpointSlices) -> (Api, Service) {
    let EndpointSlices { service, namespace, port, address_type, api, ca_file, token_file, kubeconfig } =
        slices;
    let api = match kubeconfig {
        Some(file) => Api::Kubeconfig(file),
        None => Api::Account { url: api, ca_file, token_file },
    };
    let port = match port {
        SlicePort::Number(number) => Port::Number(number),
        SlicePort::Name(name) => Port::Name(name),
    };
    let family = address_type.map(|family| match family {
        AddressType::V4 => Family::V4,
        AddressType::V6 => Family::V6,
    });
    (api, Service { namespace, name: service, port, family })
}

fn consist_of(cluster: &Cluster, found: Found) {
    let localities = &cluster.config().localities;
    let is_one = |zone: &Option<Arc<str>>| {
        let known = |zone: &Arc<str>| localities.iter().any(|one| *one.name == **zone);
        localities.is_empty() || zone.as_ref().is_some_and(known)
    };
    let stray = found.pods.iter().find(|pod| !is_one(&pod.zone)).map(|pod| match &pod.zone {
        Some(zone) => format!("{} is in zone `{zone}`, which is no locality of the cluster", pod.address),
        None => format!("{} is in no zone, and so in no locality of the cluster", pod.address),
    });
    let endpoints: Vec<_> = found
        .pods
        .into_iter()
        .map(|pod| match pod.zone {
            Some(zone) => Endpoint::Placed(Placed { address: pod.address, locality: zone.to_string() }),
            None => Endpoint::Address(pod.address),
        })
        .collect();
    let remarks: Vec<_> = found.remark.into_iter().chain(stray).collect();
    if remarks.is_empty() {
        cluster.consist_of(&endpoints);
    } else {
        cluster.consist_of_all_the_same(&endpoints, remarks.join("; "));
    }
}
