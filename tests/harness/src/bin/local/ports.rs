//! The port of each service. A port is chosen once and kept in a file, unless another program has taken it meanwhile.

use std::collections::HashMap;

use anyhow::Context as _;
use harness::port;

use crate::directory::Directory;
use crate::service::Service;

/// The port of each service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(HashMap<Service, u16>);

impl Ports {
    /// The ports of the last start. Lines that cannot be understood are passed over.
    pub(crate) fn read(directory: &Directory) -> Self {
        let text = std::fs::read_to_string(directory.ports()).unwrap_or_default();
        let known = text.lines().filter_map(|line| {
            let (name, port) = line.split_once('=')?;
            Some((name.parse().ok()?, port.parse().ok()?))
        });
        Self(known.collect())
    }

    /// A free port for each service: the port of the last start where nothing else listens there, another otherwise. Only
    /// while no service runs.
    pub(crate) fn choose(directory: &Directory) -> anyhow::Result<Self> {
        let mut chosen = Self::read(directory);
        let mut taken = Vec::new();
        for service in Service::ALL {
            let kept = chosen.of(service).filter(|port| port::is_free(*port) && !taken.contains(port));
            let port = kept.map_or_else(|| another(&taken), Ok)?;
            taken.push(port);
            chosen.0.insert(service, port);
        }
        let lines: String = Service::ALL.map(|service| format!("{service}={}\n", chosen.0[&service])).concat();
        std::fs::write(directory.ports(), lines)
            .with_context(|| format!("cannot write {}", directory.ports().display()))?;
        Ok(chosen)
    }

    /// A free port that no service has: for a listener whose port need not be the same after the next start.
    pub(crate) fn another(&self) -> anyhow::Result<u16> {
        another(&self.0.values().copied().collect::<Vec<_>>())
    }

    /// The port of a service, if one has been chosen.
    pub(crate) fn of(&self, service: Service) -> Option<u16> {
        self.0.get(&service).copied()
    }
}

fn another(taken: &[u16]) -> anyhow::Result<u16> {
    loop {
        let port = port::reserve()?;
        if !taken.contains(&port) {
            return Ok(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path().to_owned());
        (place, directory)
    }

    #[test]
    fn are_chosen_once_and_kept() {
        let (_place, directory) = directory();
        let chosen = Ports::choose(&directory).unwrap();
        assert_eq!(Ports::choose(&directory).unwrap(), chosen);
        assert_eq!(Ports::read(&directory), chosen);
        let distinct: std::collections::HashSet<_> = Service::ALL.map(|service| chosen.of(service).unwrap()).into();
        assert_eq!(distinct.len(), Service::ALL.len());
    }

    #[test]
    fn are_chosen_anew_where_another_program_listens() {
        let (_place, directory) = directory();
        let chosen = Ports::choose(&directory).unwrap();
        let gateway = chosen.of(Service::Gateway).unwrap();
        let _other = TcpListener::bind(("127.0.0.1", gateway)).unwrap();
        let again = Ports::choose(&directory).unwrap();
        assert_ne!(again.of(Service::Gateway).unwrap(), gateway);
        assert_eq!(again.of(Service::Nats), chosen.of(Service::Nats));
    }

    #[test]
    fn lines_that_cannot_be_understood_are_passed_over() {
        let (_place, directory) = directory();
        std::fs::write(directory.ports(), "gateway=20001\napi=no port\nnothing\nnats=99999\n").unwrap();
        let ports = Ports::read(&directory);
        assert_eq!(ports.of(Service::Gateway), Some(20_001));
        assert_eq!((ports.of(Service::Api), ports.of(Service::Nats)), (None, None));
    }
}
