//! A small disk of its own for a member, on a loop device: it can be full, and it can fail.
//!
//! It needs `mkfs.ext4`, `fallocate`, and the right to mount.

use super::members::until;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// More than a short trial writes. It takes room where something is written.
const BYTES: u64 = 2 << 30;

pub struct Disk {
    mount: PathBuf,
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    let why = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", why.trim())) }
}

impl Disk {
    /// Errors say what the machine does not allow.
    pub fn new(mount: &Path) -> Result<Disk, String> {
        let image = mount.with_extension("image");
        let says = |error: std::io::Error| format!("{}: {error}", mount.display());
        std::fs::create_dir_all(mount).map_err(says)?;
        File::create(&image).and_then(|file| file.set_len(BYTES)).map_err(says)?;
        run("mkfs.ext4", &["-q", "-m", "0", &image.display().to_string()])?;
        let disk = Disk { mount: mount.to_owned() };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let image = self.mount.with_extension("image").display().to_string();
        run("mount", &["-o", "loop", &image, &self.mount.display().to_string()])
    }

    /// Where a member may keep its data there.
    pub fn directory(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Takes all the room that there is.
    pub fn fill(&self) {
        let filler = self.mount.join("filler").display().to_string();
        let mut taken = 0_u64;
        for step in [64 << 20, 4 << 20, 256 << 10, 16 << 10, 4 << 10] {
            let (len, mut at) = (step.to_string(), taken);
            while run("fallocate", &["--offset", &at.to_string(), "--length", &len, &filler]).is_ok() {
                at += step;
            }
            taken = at;
        }
        assert!(taken > 0, "there was room");
    }

    pub fn empty(&self) {
        std::fs::remove_file(self.mount.join("filler")).expect("it was filled");
    }
}

impl Disk {
    /// Every read and every write fails from now on, and what was not yet on the disk is lost.
    #[allow(unsafe_code, reason = "std has no safe way to shut a file system down")]
    pub fn fail(&self) {
        use std::os::fd::AsRawFd;
        /// ext4's, with what is said of its journal: it is not written either.
        const SHUT_DOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
        let without_journal = 2_u32;
        let directory = File::open(&self.mount).expect("it is mounted");
        // SAFETY: the file is open, and the call reads the number that it is given and nothing else.
        let done = unsafe { libc::ioctl(directory.as_raw_fd(), SHUT_DOWN, &raw const without_journal) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// The disk is well again, with what it had. Nobody may use it meanwhile.
    pub fn mend(&self) -> Result<(), String> {
        let mount = self.mount.display().to_string();
        // The kernel lets go of what a process had under way after its end.
        until(|| format!("{mount} stays in use"), || run("umount", &[&mount]).is_ok())?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file there ends soon.
        let _ = run("umount", &["--lazy", &self.mount.display().to_string()]);
    }
}
