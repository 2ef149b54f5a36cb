//! Circles of files: Tarjan's strongly connected components, and a ring through each component.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use crate::arrows::Arrow;

/// Returns each circle as a ring of arrows: the last arrow leads back to the file where the first arrow begins.
///
/// Of a group of files that all lead to each other, only the shortest ring through the group's first file is returned. A group can
/// hold more rings.
pub(crate) fn of(arrows: &[Arrow]) -> Vec<Vec<&Arrow>> {
    let out = by_file(arrows);
    let mut rings: Vec<_> = groups(&out).iter().filter_map(|group| ring(&out, group)).collect();
    rings.sort();
    rings
}

/// The arrows by the file at the beginning of the arrow.
type Out<'a> = BTreeMap<&'a Path, Vec<&'a Arrow>>;

fn by_file(arrows: &[Arrow]) -> Out<'_> {
    let mut out = Out::new();
    for arrow in arrows {
        out.entry(&arrow.from).or_default().push(arrow);
        out.entry(&arrow.to).or_default();
    }
    out
}

/// The groups of files that all lead to each other.
fn groups<'a>(out: &'a Out<'a>) -> Vec<Vec<&'a Path>> {
    let mut search =
        Search { out, order: BTreeMap::new(), low: BTreeMap::new(), stack: Vec::new(), groups: Vec::new() };
    for file in out.keys() {
        if !search.order.contains_key(file) {
            search.visit(file);
        }
    }
    search.groups
}

struct Search<'a> {
    out: &'a Out<'a>,
    order: BTreeMap<&'a Path, usize>,
    low: BTreeMap<&'a Path, usize>,
    stack: Vec<&'a Path>,
    groups: Vec<Vec<&'a Path>>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, file: &'a Path) {
        let number = self.order.len();
        self.order.insert(file, number);
        let mut low = number;
        self.stack.push(file);
        for arrow in &self.out[file] {
            let to = arrow.to.as_path();
            if !self.order.contains_key(to) {
                self.visit(to);
                low = low.min(self.low[to]);
            } else if self.stack.contains(&to) {
                low = low.min(self.order[to]);
            }
        }
        self.low.insert(file, low);
        if low == number {
            let start = self.stack.iter().position(|other| *other == file).unwrap_or(0);
            self.groups.push(self.stack.split_off(start));
        }
    }
}

/// The shortest way from the group's first file back to itself, within the group.
fn ring<'a>(out: &Out<'a>, group: &[&Path]) -> Option<Vec<&'a Arrow>> {
    let start = *group.iter().min().filter(|_| group.len() > 1)?;
    let mut came_by: BTreeMap<&Path, &Arrow> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(file) = waiting.pop_front() {
        for arrow in out[file].iter().filter(|arrow| group.contains(&arrow.to.as_path())) {
            if arrow.to == start {
                return Some(back(&came_by, arrow));
            }
            if !came_by.contains_key(arrow.to.as_path()) {
                came_by.insert(&arrow.to, arrow);
                waiting.push_back(&arrow.to);
            }
        }
    }
    None
}

fn back<'a>(came_by: &BTreeMap<&Path, &'a Arrow>, last: &'a Arrow) -> Vec<&'a Arrow> {
    let mut ring = vec![last];
    while let Some(arrow) = ring.last().and_then(|arrow| came_by.get(arrow.from.as_path())) {
        ring.push(arrow);
    }
    ring.reverse();
    ring
}
