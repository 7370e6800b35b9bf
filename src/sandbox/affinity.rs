//! Keeps a child that uses a GPU on the cores beside it: pictures that cross to another processor's memory cost twice.

use nix::libc;

/// A set of processors as the kernel takes it.
pub struct Mask(libc::cpu_set_t);

/// Reads the kernel's way of listing processors: `0-15,32-47`. None where the text is no such list, or holds none.
pub fn mask(list: &str) -> Option<Mask> {
    let cpus = cpus(list)?;
    // SAFETY: the set is an array of bits, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in &cpus {
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    (!cpus.is_empty()).then_some(Mask(set))
}

/// Confines this process. Where the kernel refuses (a container may own none of these cores), it runs where it may.
/// Makes one system call and nothing else, as is right between fork and exec.
pub fn run_on(mask: &Mask) {
    // SAFETY: the set is whole, and its size is given with it.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &mask.0) };
}

fn cpus(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        let size = libc::CPU_SETSIZE as usize;
        cpus.extend((from..=to.min(size - 1)).filter(|cpu| *cpu < size));
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kernel_are_read_and_nonsense_is_not() {
        assert_eq!(cpus("0-2,8,10-11\n"), Some(vec![0, 1, 2, 8, 10, 11]));
        assert_eq!(cpus("many"), None);
        assert_eq!(cpus("0-999999999").map(|cpus| cpus.len()), Some(libc::CPU_SETSIZE as usize));
        assert!(mask("").is_none() && mask("0").is_some());
    }
}
