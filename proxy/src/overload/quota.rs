//! What the system lets this process have of the processors: the quota of its control group (cgroups(7)), as Kubernetes sets
//! it from `resources.limits.cpu`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// It may be changed meanwhile.
const HOLDS: Duration = Duration::from_secs(10);

/// The quota when it was last read.
#[derive(Debug)]
pub(super) struct Quota {
    processors: f64,
    read_at: Instant,
}

impl Quota {
    pub(super) fn read() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let processors = in_groups(Path::new("/sys/fs/cgroup"), &groups).unwrap_or(f64::INFINITY);
        Self { processors, read_at: Instant::now() }
    }

    /// So many processors; no number is too large without a quota.
    pub(super) fn processors(&mut self) -> f64 {
        if self.read_at.elapsed() > HOLDS {
            *self = Self::read();
        }
        self.processors
    }
}

/// The least of its groups and of those that they are in; a container that does not see them has its own at the root.
fn in_groups(mounted: &Path, groups: &str) -> Option<f64> {
    let quotas = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        if controllers.is_empty() {
            least(mounted, group, version_2)
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            least(&mounted.join("cpu"), group, version_1)
        } else {
            None
        }
    });
    quotas.min_by(f64::total_cmp)
}

fn least(root: &Path, group: &str, quota: fn(&Path) -> Option<f64>) -> Option<f64> {
    let folder: PathBuf = root.join(group);
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(root));
    folders.filter_map(quota).min_by(f64::total_cmp)
}

/// `cpu.max`: a quota or `max`, and the period, both in microseconds.
fn version_2(folder: &Path) -> Option<f64> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    share(quota, period)
}

/// The same in two files; -1 is none.
fn version_1(folder: &Path) -> Option<f64> {
    let read = |file| fs::read_to_string(folder.join(file)).ok();
    share(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?)
}

fn share(quota: &str, period: &str) -> Option<f64> {
    let [quota, period] = [quota, period].map(|micros| micros.trim().parse::<u32>().ok().filter(|&n| n > 0));
    Some(f64::from(quota?) / f64::from(period?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(groups: &str, files: &[(&str, &str)]) -> Option<f64> {
        let mounted = tempfile::tempdir().expect("a folder");
        for (file, text) in files {
            let file = mounted.path().join(file);
            fs::create_dir_all(file.parent().expect("its folder")).expect("its folder");
            fs::write(file, text).expect("the file");
        }
        in_groups(mounted.path(), groups)
    }

    #[test]
    fn the_least_quota_of_a_group_and_those_around_it_holds() {
        assert_eq!(found("0::/\n", &[("cpu.max", "25000 100000\n")]), Some(0.25));
        assert_eq!(found("0::/\n", &[("cpu.max", "max 100000\n")]), None);
        let pods = [("pods/one/cpu.max", "max 100000\n"), ("pods/cpu.max", "50000 100000\n")];
        assert_eq!(found("0::/pods/one\n", &pods), Some(0.5));
        let seen_from_outside = "0::/kubepods.slice/not/here\n";
        assert_eq!(found(seen_from_outside, &[("cpu.max", "150000 100000\n")]), Some(1.5));
        assert_eq!(found("0::/\n", &[]), None);
    }

    #[test]
    fn version_1_has_it_in_two_files() {
        let files = |quota| [("cpu/a/cpu.cfs_quota_us", quota), ("cpu/a/cpu.cfs_period_us", "100000\n")];
        let groups = "3:cpuset:/a\n2:cpu,cpuacct:/a\n0::/\n";
        assert_eq!(found(groups, &files("20000\n")), Some(0.2));
        assert_eq!(found(groups, &files("-1\n")), None);
        assert_eq!(found("3:cpuset:/a\n", &files("20000\n")), None);
    }

    #[test]
    fn what_is_none_is_none() {
        for (groups, max) in
            [("", "1 1"), ("0::/", ""), ("0::/", "0 100000"), ("0::/", "1 0"), ("nonsense", "1 1")]
        {
            assert_eq!(found(groups, &[("cpu.max", max)]), None, "{groups} {max}");
        }
    }
}
