//! Disks that fill up, fail or turn read-only under the real program.

use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use crate::kit::Served;
use crate::left_out::left_out;

/// A small file system of our own, for as long as this lives.
pub(crate) struct Small(tempfile::TempDir);

impl Small {
    /// In memory. None where we may not mount; the test says so and is left out.
    pub(crate) fn in_memory() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        Self::mount(dir, &["-t", "tmpfs", "-o", "size=40m", "tmpfs"])
    }

    /// An ext4 in a file under `folder`, which turns read-only at the first error of the disk.
    pub(crate) fn ext4(folder: &Path) -> Option<Self> {
        let image = folder.join("disk.img");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        let made = Process::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&image)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            left_out("mkfs.ext4", "mkfs.ext4 is not here");
            return None;
        }
        let image = image.to_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self::mount(dir, &["-o", "loop,errors=remount-ro", image])
    }

    fn mount(dir: tempfile::TempDir, arguments: &[&str]) -> Option<Self> {
        let mounted = Process::new("mount")
            .args(arguments)
            .arg(dir.path())
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            left_out("mount", "this user may not mount a file system");
            return None;
        }
        Some(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where the kernel lets an error of this ext4 be triggered.
    pub(crate) fn trigger(&self) -> Option<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let path = self.path().to_str().unwrap();
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(path))?;
        let device = Path::new(line.split(' ').next()?).file_name()?;
        let trigger = Path::new("/sys/fs/ext4")
            .join(device)
            .join("trigger_fs_error");
        trigger.exists().then_some(trigger)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Makes the disk of a running gateway fail, until it is dropped.
pub(crate) enum Fault {
    /// No room is left.
    Full(PathBuf),
    /// The kernel's answers to some calls are replaced: strace, attached to the gateway.
    Calls(Child),
}

impl Fault {
    /// Fills the file system that holds `folder`.
    pub(crate) fn full(folder: &Path) -> Self {
        let filler = folder.join("filler");
        let _ = std::fs::write(&filler, vec![1; 40 << 20]);
        Self::Full(filler)
    }

    /// These calls of the gateway fail with this error. None where strace may not do that.
    pub(crate) fn calls(served: &Served, calls: &str, error: &str) -> Option<Self> {
        let strace = Process::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-p",
                &served.id().to_string(),
            ])
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={error}")])
            .stdin(Stdio::null())
            .spawn();
        let Ok(mut strace) = strace else {
            left_out("strace", "strace is not installed");
            return None;
        };
        let start = Instant::now();
        while !traced(served.id(), strace.id()) {
            if strace.try_wait().unwrap().is_some() {
                left_out("strace", "this user may not trace the gateway");
                return None;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "strace hangs");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self::Calls(strace))
    }
}

/// Whether every thread of a process is traced by this tracer.
fn traced(process: u32, tracer: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let wanted = format!("TracerPid:\t{tracer}");
    threads.flatten().all(|thread| {
        std::fs::read_to_string(thread.path().join("status"))
            .is_ok_and(|status| status.lines().any(|line| line == wanted))
    })
}

impl Drop for Fault {
    fn drop(&mut self) {
        match self {
            Self::Full(filler) => std::fs::remove_file(filler).unwrap(),
            Self::Calls(strace) => {
                // It lets go of all threads when it is killed.
                strace.kill().unwrap();
                strace.wait().unwrap();
            }
        }
    }
}
